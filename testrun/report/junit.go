package report

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"vm-prebuild/testrun/event"
)

// JUnit writes a JUnit XML report of a test: a suite with the whole log and
// with a case for each subtest, which repeats its part of the log. It is laid
// out as by nixpkgs' driver since August 2026, and has the times of its cases
// besides. A test without subtests is one case "main"; so is what failed
// outside all subtests.
//
// The log is kept in unnamed temporary files, not in memory: consoles are long.
type JUnit struct {
	level          event.Level
	report         *replacement
	stdout, stderr *spill
	open           []junitCase // subtests that have not ended
	cases          []junitCase
	end            *event.TestFinished
}

// junitCase is a subtest: its log is a part of the whole one.
type junitCase struct {
	id             uint64
	name           string
	duration       time.Duration
	failed         bool
	stdout, stderr span
}

// span is a part of a spill.
type span struct{ from, to int64 }

// NewJUnit returns a sink whose Close writes a report to file, the directory
// of which must exist. Messages below level are left out, as nixpkgs' driver
// does.
func NewJUnit(file string, level event.Level) (_ *JUnit, err error) {
	j := &JUnit{level: level}
	defer func() {
		if err != nil {
			j.discard()
		}
	}()
	if j.report, err = openReplacement("JUnit report", file); err != nil {
		return nil, err
	}
	if j.stdout, err = newSpill(); err != nil {
		return nil, fmt.Errorf("JUnit report %s: %w", file, err)
	}
	if j.stderr, err = newSpill(); err != nil {
		return nil, fmt.Errorf("JUnit report %s: %w", file, err)
	}
	return j, nil
}

// Handle implements event.Sink.
func (j *JUnit) Handle(r event.Record) {
	switch e := r.Event.(type) {
	case event.Log:
		switch {
		case e.Level == event.Error:
			j.stderr.line(from(e.Machine) + e.Text)
		case e.Always || e.Level >= j.level:
			j.stdout.line(from(e.Machine) + e.Text)
		}
	case event.Output:
		j.stdout.line(from(e.Machine) + e.Text)
	case event.Serial:
		j.stdout.line(e.Machine + " # " + e.Text)
	case event.TestFailure:
		for _, l := range e.Lines {
			j.stderr.line(l)
		}
	case event.BlockOpen:
		if e.Subtest == "" {
			j.stdout.line(from(e.Machine) + e.Text)
			return
		}
		j.open = append(j.open, junitCase{id: e.ID, name: e.Subtest,
			stdout: span{from: j.stdout.size}, stderr: span{from: j.stderr.size}})
	case event.BlockClose:
		if e.Subtest != "" {
			j.finish(e)
		}
	case event.TestFinished:
		j.end = &e
	}
}

// finish turns an open subtest into a case.
func (j *JUnit) finish(e event.BlockClose) {
	i := slices.IndexFunc(j.open, func(c junitCase) bool { return c.id == e.ID })
	if i < 0 {
		return
	}
	c := j.open[i]
	j.open = slices.Delete(j.open, i, i+1)
	if e.Failure != "" && c.stderr.from == j.stderr.size {
		j.stderr.line(e.Failure) // nobody has said why
	}
	c.duration, c.failed = e.Duration, e.Failure != ""
	c.stdout.to, c.stderr.to = j.stdout.size, j.stderr.size
	j.cases = append(j.cases, c)
}

// Close implements event.Sink. A test that never finished leaves no report.
func (j *JUnit) Close() error {
	defer j.discard()
	if j.end == nil {
		return nil
	}
	for _, c := range slices.Clone(j.open) { // cut off by the test's end
		j.finish(event.BlockClose{ID: c.id, Failure: "the test ended before this subtest"})
	}
	failed := slices.ContainsFunc(j.cases, func(c junitCase) bool { return c.failed })
	if len(j.cases) == 0 || j.end.Failure != "" && !failed {
		j.cases = append(j.cases, junitCase{name: "main", duration: j.end.Duration, failed: j.end.Failure != ""})
	}
	return j.report.commit(j.write)
}

func (j *JUnit) discard() {
	if j.report != nil {
		j.report.discard()
	}
	for _, s := range []*spill{j.stdout, j.stderr} {
		if s != nil {
			s.file.Close()
		}
	}
}

// write has the attributes and their order, the quoting and the indentation of
// the library that nixpkgs' driver uses.
func (j *JUnit) write(out *bufio.Writer) error {
	failures := 0
	for _, c := range j.cases {
		if c.failed {
			failures++
		}
	}
	total := j.end.Duration.Seconds()
	fmt.Fprintf(out, `<?xml version="1.0" ?>
<testsuites disabled="0" errors="0" failures="%d" tests="%d" time="%.3f">
  <testsuite disabled="0" errors="0" failures="%d" name="NixOS integration test" skipped="0" tests="%d" time="%.3f">
`, failures, len(j.cases), total, failures, len(j.cases), total)
	for _, c := range j.cases {
		fmt.Fprintf(out, "    <testcase name=\"%s\" time=\"%.3f\"", xmlAttribute.Replace(printable(c.name)), c.duration.Seconds())
		if !c.failed && c.stdout.empty() && c.stderr.empty() {
			out.WriteString("/>\n")
			continue
		}
		out.WriteString(">\n")
		if c.failed {
			out.WriteString("      <failure type=\"failure\" message=\"test case failed\"/>\n")
		}
		if err := j.logs(out, "      ", c.stdout, c.stderr); err != nil {
			return err
		}
		out.WriteString("    </testcase>\n")
	}
	if err := j.logs(out, "    ", span{to: j.stdout.size}, span{to: j.stderr.size}); err != nil {
		return err
	}
	out.WriteString("  </testsuite>\n</testsuites>\n")
	return nil
}

func (j *JUnit) logs(out *bufio.Writer, indent string, stdout, stderr span) error {
	for _, part := range []struct {
		element string
		spill   *spill
		span    span
	}{{"system-out", j.stdout, stdout}, {"system-err", j.stderr, stderr}} {
		if part.span.empty() {
			continue
		}
		fmt.Fprintf(out, "%s<%s>", indent, part.element)
		if err := part.spill.copyTo(out, part.span); err != nil {
			return err
		}
		fmt.Fprintf(out, "</%s>\n", part.element)
	}
	return nil
}

func (s span) empty() bool { return s.from >= s.to }

// spill is text of any length, in a temporary file without a name. It is XML
// already: a part of it is copied as it is.
type spill struct {
	file *os.File
	buf  *bufio.Writer
	size int64
	err  error // the first one
}

func newSpill() (*spill, error) {
	f, err := os.CreateTemp("", "nixos-test-run-*")
	if err != nil {
		return nil, fmt.Errorf("temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("temporary file: %w", err)
	}
	return &spill{file: f, buf: bufio.NewWriterSize(f, 32<<10)}, nil
}

func (s *spill) line(text string) {
	n, err := s.buf.WriteString(junitText.Replace(printable(text)) + "\n")
	s.size += int64(n)
	if s.err == nil {
		s.err = err
	}
}

func (s *spill) copyTo(w io.Writer, part span) error {
	if s.err == nil {
		s.err = s.buf.Flush()
	}
	if s.err != nil {
		return fmt.Errorf("temporary file: %w", unpath(s.err))
	}
	_, err := io.Copy(w, io.NewSectionReader(s.file, part.from, part.to-part.from))
	return err
}

// junitText also escapes quotation marks, as Python's minidom does.
var junitText = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;")
