package main

import (
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMedianOfFigures(t *testing.T) {
	f := figures{"a": {3, 1, 2}, "b": {4, 1}}
	if f.median("a") != 2 || f.median("b") != 2.5 || !math.IsNaN(f.median("c")) {
		t.Errorf("medians %g, %g, %g", f.median("a"), f.median("b"), f.median("c"))
	}
}

// TestDriverVerdicts judges by a ratio, by a limit and not at all.
func TestDriverVerdicts(t *testing.T) {
	r := &driverReport{
		table:  driverTable,
		judged: true,
		theirs: figures{"command mini": {0.003}, "command systemd": {0.003}, "start played": {0.4}, "command played": {1}},
		ours:   figures{"command mini": {0.002}, "command systemd": {0.0021}, "start played": {0.101}, "command played": {1}},
	}
	var got []string
	for _, row := range r.rows() {
		got = append(got, row.Guest+" "+row.Verdict)
	}
	want := []string{"played MISSED", "played not judged", "mini ok", "systemd MISSED"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	r.judged = false
	for _, row := range r.rows() {
		if row.Verdict == missedTarget {
			t.Errorf("%+v is judged", row)
		}
	}
}

// TestDocument has the parts of the document written in turns: none loses
// another.
func TestDocument(t *testing.T) {
	file := filepath.Join(t.TempDir(), "benchmarks.md")
	driver := &driverReport{table: driverTable, ours: figures{"start played": {0.05}}, theirs: figures{"start played": {0.4}}, missing: "pydantic"}
	warm := &driverReport{table: (&warmBench{command: &warmCommand{Clones: 8}}).table(), ours: figures{"start mini": {0.2}, "clones mini": {2.5}}, theirs: figures{"start mini": {6}}}
	for range 2 {
		if err := (&report{}).writeMarkdown(file); err != nil {
			t.Fatal(err)
		}
		for _, r := range []*driverReport{driver, warm} {
			if err := r.writeMarkdown(file, r.rows()); err != nil {
				t.Fatal(err)
			}
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"# Benchmarks\n", driverHeading, "does not import pydantic", "| from exec to the start script | played | 400 ms | 50 ms | 8.0 × |",
		warmHeading, "| to the first answer | mini | 6 s | 0.2 s | 30.0 × |", "| 8 at once, all answer | mini | – | 2.5 s | – |"} {
		if n := strings.Count(string(text), part); n != 1 {
			t.Errorf("%q is there %d times:\n%s", part, n, text)
		}
	}
}

// TestConnectDriver connects to what both drivers offer.
func TestConnectDriver(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"shell", "qmp", "stderr", "monitor"} {
		l, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	for _, c := range []struct {
		arguments        string
		qmp, hmp, others int
		listens          bool
	}{
		{"-chardev socket,id=q,path=DIR/qmp -mon chardev=q,mode=control -chardev socket,id=shell,path=DIR/shell -chardev socket,id=stderr,path=DIR/stderr -monitor none", 1, 0, 1, false},
		{"-qmp unix:DIR/served,server=on,wait=off -monitor unix:DIR/monitor -chardev socket,id=shell,path=DIR/shell", 0, 1, 0, true},
	} {
		conns, err := connectDriver(strings.Fields(strings.ReplaceAll(c.arguments, "DIR", dir)))
		if err != nil {
			t.Fatal(err)
		}
		if len(conns.qmp) != c.qmp || len(conns.hmp) != c.hmp || len(conns.others) != c.others || (conns.qmpListener != nil) != c.listens {
			t.Errorf("%s: %+v", c.arguments, conns)
		}
	}
	if _, err := connectDriver([]string{"-nographic"}); err == nil {
		t.Error("connected without a shell")
	}
}

// TestStopwatch counts the time between an answer and the next question, and
// only between the marks.
func TestStopwatch(t *testing.T) {
	file := filepath.Join(t.TempDir(), "own")
	t.Setenv(ownEnv, file)
	var w stopwatch
	pause := func() { time.Sleep(20 * time.Millisecond) }
	w.answered()
	pause() // before the marks
	w.asked(beginMark)
	pause() // the guest's
	w.answered()
	pause()
	w.asked([]byte("true"))
	w.answered()
	pause()
	w.asked(endMark)
	w.answered()
	pause()
	w.asked([]byte("true"))
	own, err := readNumber(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Duration(own); d < 40*time.Millisecond || d != w.own {
		t.Errorf("%v, of %v", d, w.own)
	}
}
