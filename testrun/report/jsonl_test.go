package report_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/report"
)

func TestJSONLines(t *testing.T) {
	out := written(t, report.NewJSONLines, story...)
	golden(t, "log.jsonl", out)
	lines := strings.SplitAfter(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(story) {
		t.Fatalf("%d lines, want %d", len(lines), len(story))
	}
	for i, line := range lines {
		got, err := report.DecodeJSONLine([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(record(i, story[i]), got); diff != "" {
			t.Errorf("%s%s", line, diff)
		}
	}
}

func TestDecodeJSONLineErrors(t *testing.T) {
	for line, want := range map[string]string{
		"":                              "unexpected end",
		`{"type":"unheard"}`:            `unknown type "unheard"`,
		`{"type":"log","level":"loud"}`: `log level "loud" does not exist`,
		`{"type":"test_finished","duration":1e300}`:        "too many",
		`{"type":"test_finished","duration":"1"}`:          "invalid syntax",
		`{"type":"command","status":"0","machine":"web"}`:  "status",
		`{"time":"yesterday","type":"log","level":"info"}`: "yesterday",
	} {
		if _, err := report.DecodeJSONLine([]byte(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", line, err, want)
		}
	}
}

// FuzzDecodeJSONLine: what can be read is written again as it was read.
func FuzzDecodeJSONLine(f *testing.F) {
	var buf bytes.Buffer
	for _, e := range story {
		buf.Write(written(f, report.NewJSONLines, e))
	}
	for line := range bytes.Lines(buf.Bytes()) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := report.DecodeJSONLine(line)
		if err != nil || r.Time.Year() < 0 || r.Time.Year() > 9999 {
			return
		}
		again := written(t, func(file string) (*report.JSONLines, error) { return report.NewJSONLines(file) }, r.Event)
		if !json.Valid(again) || bytes.Count(again, []byte("\n")) != 1 {
			t.Fatalf("%q", again)
		}
		second, err := report.DecodeJSONLine(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r.Event, second.Event); diff != "" {
			t.Error(diff)
		}
	})
}

func TestJSONLinesSeconds(t *testing.T) {
	out := string(written(t, report.NewJSONLines, event.TestFinished{Duration: -1500 * time.Millisecond}, event.TestFinished{Duration: 1}))
	for _, want := range []string{`"seconds":0.000000000`, `"duration":-1.500000000}`, `"seconds":0.001000000`, `"duration":0.000000001}`} {
		if !strings.Contains(out, want) {
			t.Errorf("%s is missing in\n%s", want, out)
		}
	}
}
