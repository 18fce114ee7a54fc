package suite

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// write makes files below a new directory.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// What is written is what is read: of both formats, only tests that passed.
func TestReadDurationsOfReports(t *testing.T) {
	var junit, asJSON bytes.Buffer
	if err := sampleReport().WriteJUnit(&junit); err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(&asJSON).Encode(sampleReport()); err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"junit.xml": junit.String(), "report.json": asJSON.String()})
	for _, name := range []string{"junit.xml", "report.json"} {
		got, missing, err := ReadDurations(filepath.Join(dir, name))
		if diff := cmp.Diff(Durations{"vm-help": 4200 * time.Millisecond}, got); err != nil || missing != nil || diff != "" {
			t.Errorf("%s: %v, missing %q\n%s", name, err, missing, diff)
		}
	}
}

const aPassed = `<testsuites name="vm-tests"><testsuite name="vm-tests"><testcase name="a" time="%"></testcase></testsuite></testsuites>`

func TestReadDurations(t *testing.T) {
	dir := write(t, map[string]string{
		"1/junit.xml":   strings.Replace(aPassed, "%", "1", 1),
		"2/junit.xml":   strings.Replace(aPassed, "%", "2.5", 1),
		"2/log":         "not a report by its name",
		"manifest.json": `{"version":1,"tests":{"a":{}}}`,
		"list.json":     `["a"]`,
		"of-pytest.xml": `<testsuites name="pytest tests"><testsuite><testcase name="a" time="100"/></testsuite></testsuites>`,
		"page.xml":      `<html/>`,
		"empty.xml":     `<?xml version="1.0"?><testsuites name="vm-tests"></testsuites>`,
	})
	none := filepath.Join(dir, "none.xml")
	got, missing, err := ReadDurations(dir, none)
	if diff := cmp.Diff(Durations{"a": 1750 * time.Millisecond}, got); err != nil || !cmp.Equal(missing, []string{none}) || diff != "" {
		t.Errorf("%v, missing %q\n%s", err, missing, diff)
	}
	for name, want := range map[string]string{
		"manifest.json": "not a report of run-vm-tests",
		"list.json":     "not a report of run-vm-tests",
		"of-pytest.xml": "not a report of run-vm-tests",
		"page.xml":      "not a report of run-vm-tests",
	} {
		path := filepath.Join(dir, name)
		_, _, err := ReadDurations(path)
		reportErr, ok := errors.AsType[*ReportError](err)
		if !ok || reportErr.Path != path || reportErr.ExitCode() != 2 || !strings.HasPrefix(reportErr.Err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadDurationsRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"empty.json":     {"", "unexpected end of JSON input"},
		"broken.json":    {"{\n\"tests\":\noops}", "line 3: invalid character"},
		"cut.xml":        {aPassed[:len(aPassed)-5], "unexpected EOF"},
		"word.xml":       {strings.Replace(aPassed, "%", "soon", 1), `test "a": time "soon" is no number`},
		"nan.xml":        {strings.Replace(aPassed, "%", "NaN", 1), `test "a": NaN seconds cannot be`},
		"negative.xml":   {strings.Replace(aPassed, "%", "-1", 1), `test "a": -1 seconds cannot be`},
		"centuries.json": {`{"started":"2026-11-22T04:25:00Z","tests":[{"name":"a","status":"passed","durationSeconds":1e10}]}`, `test "a": 1e+10 seconds cannot be`},
	} {
		dir := write(t, map[string]string{name: c.text})
		for _, path := range []string{filepath.Join(dir, name), dir} {
			_, _, err := ReadDurations(path)
			if err == nil || !strings.HasPrefix(err.Error(), "durations "+filepath.Join(dir, name)+": ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

func FuzzReport(f *testing.F) {
	var junit bytes.Buffer
	if err := sampleReport().WriteJUnit(&junit); err != nil {
		f.Fatal(err)
	}
	f.Add(junit.Bytes())
	f.Add([]byte(`{"started":"2026-11-22T04:25:00Z","tests":[{"name":"a","status":"passed","durationSeconds":3}]}`))
	f.Add([]byte(strings.Replace(aPassed, "%", "1e300", 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r recorder
		if r.parse(data) != nil {
			return
		}
		for name, d := range r.means() {
			if d < 0 || d > 366*24*time.Hour {
				t.Errorf("%q takes %v", name, d)
			}
		}
	})
}
