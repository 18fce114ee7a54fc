package report_test

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/report"
)

func junit(t *testing.T, events ...event.Event) string {
	t.Helper()
	out := written(t, func(f string) (*report.JUnit, error) { return report.NewJUnit(f, event.Info) }, events...)
	var any struct {
		XMLName xml.Name
	}
	if err := xml.Unmarshal(out, &any); err != nil {
		t.Errorf("not XML: %v\n%s", err, out)
	}
	return string(out)
}

func TestJUnit(t *testing.T) {
	golden(t, "junit-story.xml", []byte(junit(t, story...)))
}

// TestJUnitAsNixpkgs tells what nixpkgs' test of its driver tells. The cases of
// the subtests are its golden file's to the byte but for the times, which the
// file lacks. The file is older than August 2026, since when the log outside
// subtests is in the suite and no longer in a case "main".
func TestJUnitAsNixpkgs(t *testing.T) {
	got := junit(t,
		event.Log{Level: event.Info, Text: "Starting test..."},
		event.Log{Level: event.Info, Text: "Log message 1"},
		event.BlockOpen{ID: 1, Text: "subtest: my subtest", Subtest: "my subtest"},
		event.Log{Level: event.Info, Text: "Subtest log"},
		event.BlockClose{ID: 1, Text: "subtest: my subtest", Subtest: "my subtest", Duration: 1500 * time.Millisecond},
		event.BlockOpen{ID: 2, Text: "subtest: failing subtest", Subtest: "failing subtest"},
		event.Log{Level: event.Info, Text: "Some output"},
		event.Log{Level: event.Error, Text: "Error occurred"},
		event.BlockClose{ID: 2, Text: "subtest: failing subtest", Subtest: "failing subtest", Failure: "Error occurred", Duration: time.Second},
		event.TestFinished{Duration: 3 * time.Second, Failure: "test failed"},
	)
	golden(t, "junit-nixpkgs-layout.xml", []byte(got))

	want, err := os.ReadFile(filepath.Join("testdata", "junit-nixpkgs.xml"))
	if err != nil {
		t.Fatal(err)
	}
	cases := regexp.MustCompile(`(?s)    <testcase .*?</testcase>\n`)
	theirs := cases.FindAllString(string(want), -1)
	ours := cases.FindAllString(regexp.MustCompile(`(<testcase [^>]*) time="[0-9.]+"`).ReplaceAllString(got, "$1"), -1)
	if strings.Join(ours, "") != strings.Join(theirs[1:], "") {
		t.Errorf("cases differ:\n%s\nwant:\n%s", ours, theirs[1:])
	}
	head := regexp.MustCompile(`(?s)^.*?\n {4}`)
	numbers := regexp.MustCompile(`(tests|time)="[0-9.]+"`)
	if o, w := numbers.ReplaceAllString(head.FindString(got), ""), numbers.ReplaceAllString(head.FindString(string(want)), ""); o != w {
		t.Errorf("head:\n%s\nwant:\n%s", o, w)
	}
	all := "<system-out>Starting test...\nLog message 1\nSubtest log\nSome output\n</system-out>\n    <system-err>Error occurred\n</system-err>\n  </testsuite>"
	if !strings.Contains(got, all) {
		t.Errorf("the suite lacks the whole log:\n%s", got)
	}
}

func TestJUnitCases(t *testing.T) {
	open := event.BlockOpen{ID: 1, Text: "subtest: works", Subtest: "works"}
	closed := event.BlockClose{ID: 1, Text: "subtest: works", Subtest: "works"}
	for name, test := range map[string]struct {
		events []event.Event
		want   []string
		not    string
	}{
		"no subtest, passed": {
			[]event.Event{event.TestFinished{Duration: time.Second}},
			[]string{`<testcase name="main" time="1.000"/>`, `failures="0" tests="1"`}, "<failure"},
		"no subtest, failed": {
			[]event.Event{event.TestFinished{Failure: "no"}},
			[]string{`<testcase name="main"`, `failures="1" tests="1"`, "<failure"}, "works"},
		"passed": {
			[]event.Event{open, closed, event.TestFinished{}},
			[]string{`<testcase name="works" time="0.000"/>`, `failures="0" tests="1"`}, "main"},
		"failed outside all subtests": {
			[]event.Event{open, closed, event.TestFinished{Failure: "outside"}},
			[]string{`<testcase name="main"`, `failures="1" tests="2"`}, "works\" time=\"0.000\">"},
		"nobody said why": {
			[]event.Event{open, event.BlockClose{ID: 1, Subtest: "works", Failure: "a <reason>"}, event.TestFinished{Failure: "failed"}},
			[]string{`<system-err>a &lt;reason&gt;`}, "main"},
		"cut off": {
			[]event.Event{open, event.TestFinished{Failure: "time-out"}},
			[]string{`<testcase name="works"`, "the test ended before this subtest"}, "main"},
		"nested": {
			[]event.Event{open, event.BlockOpen{ID: 2, Subtest: "inner"}, event.Log{Text: "once", Always: true},
				event.BlockClose{ID: 2, Subtest: "inner"}, closed, event.TestFinished{}},
			[]string{`<testcase name="inner"`, `<testcase name="works"`, `tests="2"`}, "main"},
	} {
		got := junit(t, test.events...)
		for _, want := range test.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q is missing:\n%s", name, want, got)
			}
		}
		if strings.Contains(got, test.not) {
			t.Errorf("%s: %q is too much:\n%s", name, test.not, got)
		}
	}
}

// TestJUnitUnfinished: a report of a test that never ended would be a lie.
func TestJUnitUnfinished(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "junit.xml")
	if err := os.WriteFile(file, []byte("earlier"), 0o644); err != nil {
		t.Fatal(err)
	}
	j, err := report.NewJUnit(file, event.Info)
	if err != nil {
		t.Fatal(err)
	}
	tell(j, story[:5]...)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(file); string(text) != "earlier" {
		t.Errorf("%s", text)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
}
