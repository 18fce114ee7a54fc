package report

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jstemmer/go-junit-report/v2/junit"

	"vm-prebuild/testrun/event"
)

// JUnit collects a test's subtests into a JUnit XML report, which Close
// writes. Each subtest is a case; a test without subtests is one case "main".
type JUnit struct {
	file  string
	suite junit.Testsuite
	log   strings.Builder
	open  []*openCase
	begin time.Time
}

// openCase is a subtest that has not ended.
type openCase struct {
	id  uint64
	log strings.Builder
}

// NewJUnit returns a sink that writes its report to file.
func NewJUnit(file string) *JUnit {
	return &JUnit{file: file, suite: junit.Testsuite{Name: "NixOS integration test"}, begin: time.Now()}
}

// Handle implements event.Sink.
func (j *JUnit) Handle(r event.Record) {
	switch e := r.Event.(type) {
	case event.Log:
		j.write(from(e.Machine) + e.Text)
	case event.Serial:
		j.write(e.Machine + " # " + e.Text)
	case event.TestFailure:
		j.write(strings.Join(e.Lines, "\n"))
	case event.BlockOpen:
		if e.Subtest != "" {
			j.open = append(j.open, &openCase{id: e.ID})
		}
		j.write(from(e.Machine) + e.Text)
	case event.BlockClose:
		if e.Subtest != "" {
			j.finish(e)
		}
	case event.TestFinished:
		j.suite.Time = fmt.Sprintf("%.3f", e.Duration.Seconds())
		if len(j.suite.Testcases) == 0 {
			j.add("main", e.Duration, e.Failure, "")
		} else if e.Failure != "" && j.suite.Failures == 0 {
			// What failed lies outside all subtests.
			j.add("main", e.Duration, e.Failure, "")
		}
	}
}

func (j *JUnit) write(line string) {
	line = printable(line) + "\n"
	j.log.WriteString(line)
	for _, c := range j.open {
		c.log.WriteString(line)
	}
}

func (j *JUnit) finish(e event.BlockClose) {
	for i, c := range j.open {
		if c.id == e.ID {
			j.open = append(j.open[:i], j.open[i+1:]...)
			j.add(e.Subtest, e.Duration, e.Failure, c.log.String())
			return
		}
	}
}

func (j *JUnit) add(name string, d time.Duration, failure, log string) {
	c := junit.Testcase{Name: printable(name), Time: fmt.Sprintf("%.3f", d.Seconds())}
	if log != "" {
		c.SystemOut = &junit.Output{Data: log}
	}
	if failure != "" {
		c.Failure = &junit.Result{Type: "failure", Message: "test case failed", Data: printable(failure)}
	}
	j.suite.AddTestcase(c)
}

// Close implements event.Sink.
func (j *JUnit) Close() error {
	if j.suite.Time == "" {
		j.suite.Time = fmt.Sprintf("%.3f", time.Since(j.begin).Seconds())
	}
	j.suite.SystemOut = &junit.Output{Data: j.log.String()}
	var all junit.Testsuites
	all.AddSuite(j.suite)
	all.Time = j.suite.Time
	tmp, err := os.CreateTemp(filepath.Dir(j.file), ".junit-*")
	if err != nil {
		return fmt.Errorf("JUnit report %s: %w", j.file, err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(xml.Header)
	if err == nil {
		err = all.WriteXML(tmp)
	}
	if err == nil {
		err = tmp.Chmod(0o644)
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), j.file)
	}
	if err != nil {
		return fmt.Errorf("JUnit report %s: %w", j.file, err)
	}
	return nil
}
