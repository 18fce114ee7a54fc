package suite

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jstemmer/go-junit-report/v2/junit"
)

// sorted are the results by name.
func (r *Report) sorted() []Result {
	return slices.SortedFunc(slices.Values(r.Results), func(a, b Result) int { return strings.Compare(a.Name, b.Name) })
}

// WriteTable writes the results as text, a test a line, and a line that sums up.
func (r *Report) WriteTable(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "TEST\tRESULT\tTIME\tREASON\n")
	for _, result := range r.sorted() {
		reason, _, _ := strings.Cut(result.Reason, "\n")
		row := []string{result.Name, string(result.Status), seconds(result.Duration())}
		if reason != "" {
			row = append(row, reason)
		}
		fmt.Fprintln(table, strings.Join(row, "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, r.Summary())
	return err
}

// Summary says how many tests ended in which way: "3 tests in 4.2 s: 2 passed,
// 1 failed".
func (r *Report) Summary() string {
	var counts []string
	for _, s := range []Status{Passed, Failed, TimedOut, Error} {
		if n := r.Count(s); n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, s))
		}
	}
	summary := fmt.Sprintf("%s in %s", plural(len(r.Results), "test"), seconds(time.Duration(r.DurationSeconds*float64(time.Second))))
	if len(counts) > 0 {
		summary += ": " + strings.Join(counts, ", ")
	}
	return summary
}

// junitName is the name of the suite, by which [ReadDurations] knows our reports.
const junitName = "vm-tests"

// WriteJUnit writes the results as JUnit XML: one suite with a case per test,
// whose time-outs count as failures.
func (r *Report) WriteJUnit(w io.Writer) error {
	suite := junit.Testsuite{Name: junitName, Time: fmt.Sprintf("%.3f", r.DurationSeconds)}
	suite.SetTimestamp(r.Started.UTC())
	for _, result := range r.sorted() {
		c := junit.Testcase{
			Name:      result.Name,
			Classname: junitName,
			Time:      fmt.Sprintf("%.3f", result.DurationSeconds),
		}
		bad := &junit.Result{Message: result.Reason, Type: string(result.Status), Data: plainText(strings.Join(result.Tail, "\n"))}
		switch result.Status {
		case Passed:
		case Failed, TimedOut:
			c.Failure = bad
		case Error:
			c.Error = bad
		}
		suite.AddTestcase(c)
	}
	var all junit.Testsuites
	all.Name, all.Time = suite.Name, suite.Time
	all.AddSuite(suite)
	if _, err := io.WriteString(w, `<?xml version="1.0" encoding="UTF-8"?>`+"\n"); err != nil {
		return err
	}
	return all.WriteXML(w)
}

// WriteJUnitFile writes the results as JUnit XML to a file, which appears whole
// or not at all. Directories that it lies in are made.
func (r *Report) WriteJUnitFile(path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing the JUnit report: %w", err)
		}
	}()
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".junit-*.xml")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	err = errors.Join(r.WriteJUnit(f), f.Chmod(0o644), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// csi matches the escape sequences with which consoles colour and move.
var csi = regexp.MustCompile("\x1b\\[[0-9;?]*[@-~]")

// plainText drops what XML cannot carry (encoding/xml cleans attributes, but not
// CDATA) and what would move the cursor or clear the screen of a terminal that
// shows a guest's output.
func plainText(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' && c != '\t' && c != '\n' || c == 0x7F || c == 0xFFFE || c == 0xFFFF {
			return -1
		}
		return c
	}, csi.ReplaceAllString(s, ""))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
