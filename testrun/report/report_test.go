package report_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/report"
)

var update = flag.Bool("update", false, "write the golden files anew")

// story is every kind of event once.
var story = []event.Event{
	event.Log{Level: event.Info, Text: "an info"},
	event.Log{Level: event.Debug, Machine: "web", Text: "a debug message"},
	event.Log{Level: event.Debug, Text: "said at any level", Always: true},
	event.MachineStarted{Machine: "web", PID: 42, CommandLine: []string{"qemu-system-x86_64", "-name", "a <web>"}},
	event.MachineConnected{Machine: "web", Duration: 1234567890},
	event.BlockOpen{ID: 1, Text: "subtest: works", Subtest: "works"},
	event.BlockOpen{ID: 2, Machine: "web", Text: "must succeed: true && \"true\"", Attrs: map[string]string{"image": `"a".png`, "no name": ""}},
	event.Serial{Machine: "web", Text: "\x1bca \x1b[1mserial\x07 line <&>\u200b"},
	event.Serial{Machine: "web", Text: "on standard error", Stderr: true},
	event.Output{Machine: "web", Text: "on standard output"},
	event.Command{Machine: "web", Text: "true && \"true\"", Duration: 50 * time.Millisecond, Stdout: "on standard output\n"},
	event.BlockClose{ID: 2, Machine: "web", Text: "must succeed: true && \"true\"", Duration: 54 * time.Millisecond},
	event.BlockClose{ID: 1, Text: "subtest: works", Subtest: "works", Duration: 1500 * time.Millisecond},
	event.BlockOpen{ID: 3, Text: "subtest: breaks", Subtest: "breaks"},
	event.BlockClose{ID: 3, Text: "subtest: breaks", Subtest: "breaks", Duration: time.Second, Failure: "command `false` failed"},
	event.TestFailure{Lines: []string{"RequestedAssertionFailed: command `false` failed"}, Script: "/test.py", Line: 7, Subtest: "breaks"},
	event.Artifact{Machine: "web", Kind: "screenshot", Path: "/out/web.png"},
	event.MachineStopped{Machine: "web", Reason: "powered off", Expected: true},
	event.Traffic{VLAN: 1, Machine: "web", FromFrames: 1, FromBytes: 2, ToFrames: 3, ToBytes: 4, Dropped: 5},
	event.Log{Level: event.Error, Text: "an error"},
	event.TestFailure{Lines: []string{"Traceback (most recent call last):", "RequestedAssertionFailed: command `false` failed"}},
	event.TestFinished{Duration: 3 * time.Second, Failure: "test failed"},
}

// tell has a millisecond between two events.
func tell(s event.Sink, events ...event.Event) {
	for i, e := range events {
		s.Handle(record(i, e))
	}
}

func record(i int, e event.Event) event.Record {
	return event.Record{Time: time.UnixMilli(1735689600000 + int64(i)).UTC(), Event: e}
}

// written tells the events to the sink that open makes for a file, and returns
// the file.
func written[S event.Sink](t testing.TB, open func(file string) (S, error), events ...event.Event) []byte {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "report")
	s, err := open(file)
	if err != nil {
		t.Fatal(err)
	}
	tell(s, events...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("more than the report is left: %v", files)
	}
	return out
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (run with -update to accept):\n%s", file, got)
	}
}

func TestTerminal(t *testing.T) {
	for name, test := range map[string]struct {
		level   event.Level
		colours bool
		serial  bool
	}{
		"terminal-info.golden":    {event.Info, false, true},
		"terminal-colours.golden": {event.Debug, true, true},
		"terminal-error.golden":   {event.Error, false, false},
	} {
		var out bytes.Buffer
		s := report.NewTerminal(&out, test.level, test.colours, func() bool { return test.serial })
		tell(s, story...)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		golden(t, name, out.Bytes())
	}
}

// TestTerminalControl: a guest whose output is logged cannot clear the screen,
// and a script may colour what it logs.
func TestTerminalControl(t *testing.T) {
	for colours, want := range map[bool]string{
		true:  "a \x1b[1;31mred\x1b[0m word, cleared\x1b[0m\nplain\n",
		false: "a red word, cleared\nplain\n",
	} {
		var out bytes.Buffer
		s := report.NewTerminal(&out, event.Info, colours, func() bool { return true })
		tell(s, event.Log{Text: "a \x1b[1;31mred\x1b[0m word, \x1b[2J\x07cleared", Always: true}, event.Log{Level: event.Info, Text: "pla\x1b[Hin"})
		if out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	}
}

// TestUnwritable: what cannot be written is known at once, and by name.
func TestUnwritable(t *testing.T) {
	dir := t.TempDir()
	for name, open := range map[string]func(string) error{
		"XML log":               func(f string) error { _, err := report.NewXMLLog(f, event.Info); return err },
		"JUnit report":          func(f string) error { _, err := report.NewJUnit(f, event.Info); return err },
		"JSON lines":            func(f string) error { _, err := report.NewJSONLines(f); return err },
		"directory of consoles": func(f string) error { _, err := report.NewSerialDir(f); return err },
	} {
		missing := filepath.Join(dir, "missing", "file")
		err := open(missing)
		if want := name + " " + missing + ": no such file or directory\nhint: create the directory "; err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
		if name == "directory of consoles" {
			continue
		}
		if err := open(dir); err == nil || !strings.Contains(err.Error(), "directory") {
			t.Errorf("%s: a directory was taken for a file: %v", name, err)
		}
	}
	if files, _ := os.ReadDir(dir); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
}

// TestDevice: /dev/null is written to and stays what it is.
func TestDevice(t *testing.T) {
	x, err := report.NewXMLLog(os.DevNull, event.Info)
	if err != nil {
		t.Fatal(err)
	}
	j, err := report.NewJUnit(os.DevNull, event.Info)
	if err != nil {
		t.Fatal(err)
	}
	l, err := report.NewJSONLines(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []event.Sink{x, j, l} {
		tell(s, story...)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	info, err := os.Stat(os.DevNull)
	if err != nil || info.Mode()&os.ModeDevice == 0 {
		t.Errorf("%s: %v, %v", os.DevNull, info, err)
	}
}

func TestSerialDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "consoles")
	s, err := report.NewSerialDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	tell(s, story...)
	tell(s, event.MachineStarted{Machine: "silent"}, event.Serial{Machine: "../evil", Text: "outside"})
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "evil.log") {
		t.Errorf("a name that escapes the directory: %v", err)
	}
	for file, want := range map[string]string{
		"web.log":    "\x1bca \x1b[1mserial\x07 line <&>\u200b\non standard error\n",
		"silent.log": "",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", file, got, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "..", "evil.log")); err == nil {
		t.Error("a console outside of the directory")
	}
}
