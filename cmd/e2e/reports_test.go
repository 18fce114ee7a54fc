package e2e

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/report"
)

// TestReports has a real test fail and reads all that it leaves.
func TestReports(t *testing.T) {
	xmlLog := filepath.Join(t.TempDir(), "log.xml")
	r := start(t, configOf(t, "vm-help"), `
with subtest("passes"):
    machine.succeed("echo '<b>'")
    machine.screenshot("shot")
with subtest("fails"):
    machine.succeed("echo why >&2; false")  # the line that fails
`, "--xml-log", xmlLog, "--junit-xml", "junit.xml", "--jsonl", "log.jsonl", "--html", "page.html", "--serial-dir", "consoles")
	code, log := r.end(booting)
	dir := filepath.Join(r.out, "nixos-test-run-failure")
	if code != 1 || !strings.Contains(log, "machine states and report of the failure: "+dir) {
		t.Errorf("exit code %d, want 1 and a line that names %s", code, dir)
	}
	for file, wants := range map[string][]string{
		"junit.xml":                          {`<testcase name="passes" time="`, `<testcase name="fails" time="`, `failures="1" name="NixOS integration test" skipped="0" tests="2"`},
		"page.html":                          {"<title>Failed:", "# the line that fails", `data-machine="machine"`, "data:image/png;base64,"},
		"consoles/machine.log":               {"Linux version"},
		"nixos-test-run-failure/report.html": {"<title>Failed:", `href="./machine/console.log"`, "boot: root shell after"},
		"nixos-test-run-failure/machine/console.log":    {"Linux version"},
		"nixos-test-run-failure/machine/qemu-command":   {"qemu-system-", "-name machine"},
		"nixos-test-run-failure/machine/screenshot.png": {"\x89PNG"},
	} {
		text, err := os.ReadFile(filepath.Join(r.out, file))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, want := range wants {
			if !bytes.Contains(text, []byte(want)) {
				t.Errorf("%s lacks %q", file, want)
			}
		}
	}
	text, err := os.ReadFile(xmlLog)
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(bytes.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Errorf("XML log: %v", err)
			break
		}
	}
	checkEvents(t, filepath.Join(r.out, "log.jsonl"))
	r.nothingLeft(time.Second)
}

// checkEvents reads the JSON lines of TestReports.
func checkEvents(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var last event.Event
	var started, connected, stopped, failed, shots int
	for line := range bytes.Lines(text) {
		r, err := report.DecodeJSONLine(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		last = r.Event
		switch e := r.Event.(type) {
		case event.MachineStarted:
			started++
			if e.PID == 0 || len(e.CommandLine) < 10 {
				t.Errorf("%s", line)
			}
		case event.MachineConnected:
			connected++
		case event.MachineStopped:
			stopped++
		case event.TestFailure:
			if e.Line == 6 && strings.HasSuffix(e.Script, "script.py") {
				failed++
			}
		case event.Artifact:
			if e.Kind == "screenshot" {
				shots++
			}
		}
	}
	if started != 1 || connected != 1 || stopped != 1 || failed != 1 || shots != 2 {
		t.Errorf("%d starts, %d connections, %d ends, %d failures, %d screenshots; want 1, 1, 1, 1, 2", started, connected, stopped, failed, shots)
	}
	if end, ok := last.(event.TestFinished); !ok || end.Failure == "" || end.Duration <= 0 {
		t.Errorf("the last event is %#v", last)
	}
}
