package suite

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Error(diff)
	}
}

func sampleReport() *Report {
	return &Report{
		Started: time.Date(2026, 11, 22, 4, 25, 0, 0, time.UTC), DurationSeconds: 75.25,
		Results: []Result{
			{Name: "vm-help", Status: Passed, DurationSeconds: 4.2},
			{Name: "vm-config", Status: Failed, ExitCode: 1, DurationSeconds: 3.14, Reason: "the test script failed (exit code 1)",
				Tail: []string{"machine: \x1b[31mred\x1b[0m", "!!! a < b && ]]> \ufffe"}, Log: "/out/vm-config/log"},
			{Name: "vm-slow", Status: TimedOut, ExitCode: 124, DurationSeconds: 60, Reason: "global time-out of 1m0s"},
			{Name: "vm-gone", Status: Error, ExitCode: -1, DurationSeconds: 0.001, Reason: "starting the driver: gone\nhint: bring it back"},
		},
	}
}

func TestWriteTable(t *testing.T) {
	var b bytes.Buffer
	if err := sampleReport().WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "table", b.Bytes())
}

func TestWriteJUnit(t *testing.T) {
	var b bytes.Buffer
	if err := sampleReport().WriteJUnit(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "junit", b.Bytes())
}

func TestConsole(t *testing.T) {
	for name, width := range map[string]func() int{"plain": nil, "terminal": func() int { return 30 }} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			c := NewConsole(&b, width)
			report := sampleReport()
			for _, r := range report.Results {
				c.Progress(Progress{Name: r.Name, Total: 4})
			}
			for _, r := range report.Results {
				c.Progress(Progress{Name: r.Name, Total: 4, Result: &r})
			}
			c.Close()
			golden(t, "console-"+name, b.Bytes())
		})
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	text := append(bytes.Repeat([]byte("x"), 70<<10), "\none\r\ntwo\xff\n\n"...)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"one", "two\ufffd"}, tail(path, 2)); diff != "" {
		t.Error(diff)
	}
	if got := tail(path+"-none", 2); got != nil {
		t.Errorf("got %q", got)
	}
}
