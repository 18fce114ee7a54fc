package suite

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Durations are how long tests took, by their names: the mean of the runs in
// which they passed. How long a test took that failed says little of how long it
// takes.
type Durations map[string]time.Duration

// maxReportSize bounds what is read of one report, in bytes.
const maxReportSize = 64 << 20

// errForeign is what a file is that this package has not written.
var errForeign = errors.New("not a report of run-vm-tests\nhint: `run-vm-tests --junit-xml FILE` and `run-vm-tests --json` write them")

// ReportError says what is wrong with a report that durations are read from.
type ReportError struct {
	Path string // the file
	Err  error  // the reason
}

func (e *ReportError) Error() string { return fmt.Sprintf("durations %s: %v", e.Path, e.Err) }
func (e *ReportError) Unwrap() error { return e.Err }

// ExitCode is that of a configuration error.
func (e *ReportError) ExitCode() int { return 2 }

// ReadDurations reads reports of earlier runs, as [Report.WriteJUnit] and package
// json write them. A path that is a directory stands for all reports below it;
// what else is well-formed there is passed over. A path that does not exist is
// returned in missing, since the first run of all has no earlier one. All its errors are of type
// *[ReportError].
func ReadDurations(paths ...string) (durations Durations, missing []string, err error) {
	var r recorder
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, path)
		case err != nil:
			return nil, nil, reportError(path, err)
		case info.IsDir():
			if err := r.readBelow(path); err != nil {
				return nil, nil, err
			}
		default:
			if err := r.read(path); err != nil {
				return nil, nil, err
			}
		}
	}
	return r.means(), missing, nil
}

func reportError(path string, err error) error {
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		err = pathErr.Err // the path is said already
	}
	return &ReportError{Path: path, Err: err}
}

// recorder collects the seconds of the runs of each test.
type recorder map[string][]float64

func (r *recorder) readBelow(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return reportError(path, err)
		}
		ext := filepath.Ext(path)
		if !entry.Type().IsRegular() || ext != ".xml" && ext != ".json" {
			return nil
		}
		if err := r.read(path); !errors.Is(err, errForeign) {
			return err
		}
		return nil
	})
}

func (r *recorder) read(path string) error {
	data, err := readLimited(path)
	if err == nil {
		err = r.parse(data)
	}
	if err != nil {
		return reportError(path, err)
	}
	return nil
}

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxReportSize+1))
	if err == nil && len(data) > maxReportSize {
		err = fmt.Errorf("larger than %d MiB", maxReportSize>>20)
	}
	return data, err
}

// parse reads a report in either format.
func (r *recorder) parse(data []byte) error {
	if bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("<")) {
		return r.parseJUnit(data)
	}
	return r.parseJSON(data)
}

func (r *recorder) parseJSON(data []byte) error {
	var report struct {
		Started *time.Time      `json:"started"`
		Tests   json.RawMessage `json:"tests"`
	}
	if err := json.Unmarshal(data, &report); err != nil {
		if _, ok := errors.AsType[*json.SyntaxError](err); ok {
			return jsonError(data, err)
		}
		return errForeign
	}
	var results []Result
	// A manifest has tests, too; but it tells of no run.
	if report.Started == nil || json.Unmarshal(report.Tests, &results) != nil {
		return errForeign
	}
	for _, result := range results {
		if result.Status == Passed {
			if err := r.add(result.Name, result.DurationSeconds); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *recorder) parseJUnit(data []byte) error {
	var report struct {
		XMLName xml.Name `xml:"testsuites"`
		Name    string   `xml:"name,attr"`
		Cases   []struct {
			Name    string    `xml:"name,attr"`
			Time    string    `xml:"time,attr"`
			Failure *struct{} `xml:"failure"`
			Error   *struct{} `xml:"error"`
		} `xml:"testsuite>testcase"`
	}
	if err := xml.Unmarshal(data, &report); err != nil {
		if _, ok := errors.AsType[*xml.SyntaxError](err); ok || errors.Is(err, io.EOF) {
			return err // it names the line
		}
		return errForeign
	}
	if report.Name != junitName {
		return errForeign
	}
	for _, c := range report.Cases {
		if c.Failure != nil || c.Error != nil {
			continue
		}
		seconds, err := strconv.ParseFloat(c.Time, 64)
		if err != nil {
			return fmt.Errorf("test %q: time %q is no number", c.Name, c.Time)
		}
		if err := r.add(c.Name, seconds); err != nil {
			return err
		}
	}
	return nil
}

func (r *recorder) add(name string, seconds float64) error {
	const year = 366 * 24 * 3600
	if !(seconds >= 0 && seconds <= year) { // not a number, too
		return fmt.Errorf("test %q: %v seconds cannot be", name, seconds)
	}
	if *r == nil {
		*r = recorder{}
	}
	(*r)[name] = append((*r)[name], seconds)
	return nil
}

func (r *recorder) means() Durations {
	means := Durations{}
	for name, all := range *r {
		slices.Sort(all) // the order of the files must not show in the last digit
		var sum float64
		for _, seconds := range all {
			sum += seconds
		}
		means[name] = time.Duration(sum / float64(len(all)) * float64(time.Second)).Round(time.Millisecond)
	}
	return means
}
