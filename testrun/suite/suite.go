// Package suite runs many prebuilt tests, as many at once as cores and memory
// allow, each in a process group, a runtime directory and an output directory of
// its own. Its entry points are [ReadManifest] and [Run].
package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"vm-prebuild/testrun/reaper"
)

// Status is how a test ended.
type Status string

// The ways a test ends.
const (
	Passed   Status = "passed"
	Failed   Status = "failed"    // its script failed
	TimedOut Status = "timed-out" // by the driver's clock or, when that failed, by ours
	Error    Status = "error"     // it could not be run: no driver, a machine died, interrupted
)

// Result is what came of one test.
type Result struct {
	Name            string   `json:"name"`
	Status          Status   `json:"status"`
	DurationSeconds float64  `json:"durationSeconds"`
	ExitCode        int      `json:"exitCode"`            // the driver's; -1 when it did not exit by itself
	Reason          string   `json:"reason,omitempty"`    // why it did not pass, one line
	OutputDir       string   `json:"outputDir,omitempty"` // what the test wrote
	Log             string   `json:"log,omitempty"`       // all output of the driver
	Tail            []string `json:"tail,omitempty"`      // last lines of the log, unless the test passed
}

// Duration is how long the test took.
func (r Result) Duration() time.Duration {
	return time.Duration(r.DurationSeconds * float64(time.Second))
}

// Report is what came of a run.
type Report struct {
	Results         []Result  `json:"tests"` // in the order of their ends
	Started         time.Time `json:"started"`
	DurationSeconds float64   `json:"durationSeconds"`
}

// Count says how many tests ended with the given status.
func (r *Report) Count(s Status) (n int) {
	for _, result := range r.Results {
		if result.Status == s {
			n++
		}
	}
	return n
}

// Options says how to run tests. The zero value of a field means its default.
type Options struct {
	OutputDir string // below which every test gets a directory; required
	Jobs      int    // tests at once; default: as many as the processor has cores for
	MemoryMiB int    // memory of all running machines; default: 80 % of what is available

	// Env is added to the environment of every driver.
	Env []string

	// Grace is the time that a driver gets between SIGTERM and SIGKILL to end its
	// machines; default 10 s.
	Grace time.Duration
	// Margin is added to a test's own global time-out before the driver counts as
	// hanging; default 60 s.
	Margin time.Duration

	// Progress is told of every start and end, from one goroutine; may be nil.
	Progress func(Progress)
}

// Progress is the start (Result is nil) or the end of a test.
type Progress struct {
	Name   string
	Result *Result
	Total  int // tests of this run
}

// tailLines is how much of its log a failed test shows.
const tailLines = 25

// Run runs the named tests of m and returns their results. Tests that fail are
// no error. When ctx ends, running tests are ended, no further one is started,
// and both the report so far and ctx's cause are returned.
//
// The program that calls it has to call [reaper.Main] first of all in main.
func Run(ctx context.Context, m *Manifest, names []string, o Options) (*Report, error) {
	tests := make([]Test, len(names))
	for i, name := range names {
		test, ok := m.Tests[name]
		if !ok {
			return nil, fmt.Errorf("the manifest has no test %q", name)
		}
		tests[i] = test
	}
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	reap, err := reaper.Start()
	if err != nil {
		return nil, err
	}
	defer reap.Close()
	report := &Report{Results: []Result{}, Started: time.Now()}
	ended := make(chan Result)
	jobs, cores := limits(o.Jobs, len(tests))
	queue := newQueue(tests, jobs, cores, o.MemoryMiB)
	index := make(map[string]int, len(names))
	for i, name := range names {
		index[name] = i
	}
	for {
		for ctx.Err() == nil {
			i, ok := queue.next()
			if !ok {
				break
			}
			o.Progress(Progress{Name: names[i], Total: len(names)})
			go func() { ended <- runTest(ctx, reap, o, names[i], tests[i]) }()
		}
		if queue.running == 0 {
			break
		}
		result := <-ended
		queue.done(index[result.Name])
		report.Results = append(report.Results, result)
		o.Progress(Progress{Name: result.Name, Result: &result, Total: len(names)})
	}
	report.DurationSeconds = time.Since(report.Started).Seconds()
	if ctx.Err() != nil {
		return report, context.Cause(ctx)
	}
	return report, nil
}

func (o *Options) setDefaults() error {
	dir, err := filepath.Abs(o.OutputDir)
	if err != nil {
		return err
	}
	o.OutputDir = dir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the output directory: %w", err)
	}
	if o.MemoryMiB == 0 {
		available, err := AvailableMemoryMiB()
		if err != nil {
			return err
		}
		o.MemoryMiB = available * 8 / 10
	}
	if o.Grace == 0 {
		o.Grace = 10 * time.Second
	}
	if o.Margin == 0 {
		o.Margin = time.Minute
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	return nil
}

var errDeadline = errors.New("deadline")

// runTest runs one test and never fails: what goes wrong is its result.
func runTest(ctx context.Context, reap *reaper.Reaper, o Options, name string, t Test) Result {
	start := time.Now()
	r := Result{Name: name, OutputDir: filepath.Join(o.OutputDir, name)}
	limit := t.GlobalTimeout() + o.Margin
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errDeadline)
	defer cancel()

	state, err := runDriver(ctx, reap, o, &r, t)
	r.DurationSeconds = time.Since(start).Seconds()
	r.ExitCode = -1
	if state != nil {
		r.ExitCode = state.ExitCode()
	}
	switch cause := context.Cause(ctx); {
	case err != nil:
		r.Status, r.Reason = Error, err.Error()
	case state.Success():
		r.Status = Passed
	case errors.Is(cause, errDeadline):
		r.Status, r.Reason = TimedOut, fmt.Sprintf("the driver did not end within %v and was killed", limit)
	case cause != nil:
		r.Status, r.Reason = Error, cause.Error()
	default:
		r.Status, r.Reason = verdict(state, t)
	}
	if r.Status != Passed && r.Log != "" {
		r.Tail = tail(r.Log, tailLines)
	}
	return r
}

// runDriver runs the driver of t in fresh directories.
func runDriver(ctx context.Context, reap *reaper.Reaper, o Options, r *Result, t Test) (*os.ProcessState, error) {
	logPath := filepath.Join(r.OutputDir, "log")
	if err := makeOutputDir(r.OutputDir, logPath); err != nil {
		return nil, err
	}
	logFile, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	r.Log = logPath
	// Sockets live in here, and a socket's path is limited to 107 bytes, so it is
	// not below the output directory.
	runtimeDir, err := os.MkdirTemp("", "vmt-")
	if err != nil {
		return nil, fmt.Errorf("making the runtime directory: %w", err)
	}
	// What cannot be removed is no fault of the test.
	defer os.RemoveAll(runtimeDir)
	reap.RemoveAtDeath(runtimeDir)
	state, err := runGroup(ctx, reap, child{
		path:   t.Driver,
		args:   []string{"-o", r.OutputDir},
		dir:    r.OutputDir,
		env:    append(append(os.Environ(), o.Env...), "TMPDIR="+runtimeDir, "XDG_RUNTIME_DIR="+runtimeDir),
		output: logFile,
		grace:  o.Grace,
	})
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w\nhint: is the test's closure in this Nix store? `vm-prebuild build` and `vm-prebuild import` bring it there", err)
	}
	return state, err
}

// makeOutputDir makes dir, empty. Only what an earlier run left (which has a
// log) is removed.
func makeOutputDir(dir, logPath string) error {
	if _, err := os.Lstat(logPath); err == nil {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("removing the results of an earlier run: %w", err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is in the way: it is not of an earlier run, for it has no log", dir)
	}
	return os.MkdirAll(dir, 0o755)
}
