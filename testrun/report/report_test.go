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
	event.BlockOpen{ID: 1, Text: "subtest: works", Subtest: "works"},
	event.BlockOpen{ID: 2, Machine: "web", Text: "must succeed: true"},
	event.Serial{Machine: "web", Text: "\x1bca \x1b[1mserial\x07 line <&>"},
	event.BlockClose{ID: 2, Machine: "web", Text: "must succeed: true", Duration: 54 * time.Millisecond},
	event.BlockClose{ID: 1, Text: "subtest: works", Subtest: "works", Duration: 1500 * time.Millisecond},
	event.BlockOpen{ID: 3, Text: "subtest: breaks", Subtest: "breaks"},
	event.BlockClose{ID: 3, Text: "subtest: breaks", Subtest: "breaks", Duration: time.Second, Failure: "command `false` failed"},
	event.Log{Level: event.Error, Text: "an error"},
	event.TestFailure{Lines: []string{"Traceback (most recent call last):", "RequestedAssertionFailed: command `false` failed"}},
	event.TestFinished{Duration: 3 * time.Second, Failure: "test failed"},
}

func tell(s event.Sink, events ...event.Event) {
	for _, e := range events {
		s.Handle(event.Record{Time: time.Unix(0, 0), Event: e})
	}
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

func junit(t *testing.T, events ...event.Event) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "junit.xml")
	s := report.NewJUnit(file)
	tell(s, events...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestJUnit(t *testing.T) {
	golden(t, "junit.golden", junit(t, story...))
}

func TestJUnitCaseMain(t *testing.T) {
	passed := string(junit(t, event.TestFinished{Duration: time.Second}))
	if !strings.Contains(passed, `name="main"`) || strings.Contains(passed, "<failure") {
		t.Errorf("without subtests, a passing case main is missing:\n%s", passed)
	}
	outside := string(junit(t, story[3], story[7], event.TestFinished{Failure: "outside"}))
	if !strings.Contains(outside, `name="main"`) || !strings.Contains(outside, "outside") {
		t.Errorf("a failure outside all subtests is missing:\n%s", outside)
	}
}

func TestJUnitUnwritable(t *testing.T) {
	if err := report.NewJUnit("/nonexistent/junit.xml").Close(); err == nil || !strings.Contains(err.Error(), "/nonexistent/junit.xml") {
		t.Errorf("%v", err)
	}
}
