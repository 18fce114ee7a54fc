package report_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/report"
)

func openXMLLog(file string) (*report.XMLLog, error) { return report.NewXMLLog(file, event.Info) }

func wellFormed(text []byte) error {
	for d := xml.NewDecoder(bytes.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func TestXMLLog(t *testing.T) {
	out := written(t, openXMLLog, story...)
	if err := wellFormed(out); err != nil {
		t.Error(err)
	}
	golden(t, "log.xml", out)
}

// TestXMLLogOverlap: blocks of two machines that end in the order in which
// they began are elements all the same.
func TestXMLLogOverlap(t *testing.T) {
	out := written(t, openXMLLog,
		event.BlockOpen{ID: 1, Text: "start all VMs"},
		event.BlockOpen{ID: 2, Machine: "a", Text: "starting vm"},
		event.BlockOpen{ID: 3, Machine: "b", Text: "starting vm"},
		event.BlockClose{ID: 2, Machine: "a", Text: "starting vm"},
		event.BlockClose{ID: 3, Machine: "b", Text: "starting vm", Failure: "no"},
		event.BlockClose{ID: 9},
		event.BlockClose{ID: 1, Text: "start all VMs"},
		event.BlockOpen{ID: 4, Text: "never ends"},
	)
	want := `<?xml version="1.0" encoding="utf-8"?>` + "\n" +
		`<logfile><nest><head>start all VMs</head>` +
		`<nest><head machine="a">starting vm</head><nest><head machine="b">starting vm</head>` +
		`<line>(finished: starting vm, in 0.00 seconds)</line></nest></nest>` +
		`<line>(finished: , in 0.00 seconds)</line>` +
		`<line>(finished: start all VMs, in 0.00 seconds)</line></nest>` +
		`<nest><head>never ends</head></nest></logfile>`
	if string(out) != want {
		t.Errorf("%s\nwant\n%s", out, want)
	}
}

// TestXMLLogStreams: a driver that is killed leaves what it had.
func TestXMLLogStreams(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log.xml")
	x, err := openXMLLog(file)
	if err != nil {
		t.Fatal(err)
	}
	tell(x, story[0])
	if text, err := os.ReadFile(file); err != nil || !strings.HasSuffix(string(text), "<logfile><line>an info</line>") {
		t.Errorf("%s, %v", text, err)
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
}

// FuzzXML: whatever a guest or a script says, the log and the JUnit report are
// XML.
func FuzzXML(f *testing.F) {
	f.Add("a", "\x1b[2J]]>\x00\xff\uFFFE<&>\"'", "name")
	f.Add(`"<`, "two\nlines\r\n", "machine")
	f.Fuzz(func(t *testing.T, machine, text, name string) {
		events := []event.Event{
			event.BlockOpen{ID: 1, Machine: machine, Text: text, Subtest: name, Attrs: map[string]string{name: text}},
			event.Serial{Machine: machine, Text: text},
			event.Log{Level: event.Error, Machine: machine, Text: text},
			event.TestFailure{Lines: []string{text, name}},
			event.BlockClose{ID: 1, Machine: machine, Text: text, Subtest: name, Failure: text},
			event.TestFinished{Failure: text},
		}
		if err := wellFormed(written(t, openXMLLog, events...)); err != nil {
			t.Errorf("XML log: %v", err)
		}
		if err := wellFormed([]byte(junit(t, events...))); err != nil {
			t.Errorf("JUnit: %v", err)
		}
	})
}
