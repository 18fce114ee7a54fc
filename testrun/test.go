package testrun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/reaper"
	"vm-prebuild/testrun/report"
	"vm-prebuild/testrun/script"
)

// Main is for programs that use [Open]: call it first of all in main or
// TestMain. The process that ends a test's machines when the program is killed
// is a second one of the same executable, and this is where it goes its own
// way.
func Main() { reaper.Main() }

// Test is a test under way: its VLANs are there, and its machines can be
// started. What [Run] has a script do, a Go program does with the methods of
// its machines; examples/gotest shows how.
type Test struct {
	d     *driver
	page  *report.Page
	begin time.Time

	closing sync.Once
	closed  error
	mu      sync.Mutex
	failure error // reported by Fail
}

// Open sets up the machines and VLANs of a test and returns it; no machine
// runs then. Close ends it. Of cfg, the script, its language and time-out are
// not used: contexts limit each operation.
//
// The error is a *[ConfigError] when the test cannot begin as described, and a
// *[RunError] when the host gave out.
func Open(ctx context.Context, cfg Config, o Options) (*Test, error) {
	if err := cfg.check(); err != nil {
		return nil, &ConfigError{Err: err}
	}
	if err := cfg.checkOutDir(); err != nil {
		return nil, err
	}
	return open(ctx, cfg, o)
}

// open is Open for a checked configuration.
func open(ctx context.Context, cfg Config, o Options) (*Test, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	w := watch{serial: new(atomic.Bool), blocks: new(openBlocks), streamOutput: o.LogLevel == event.Debug}
	w.serial.Store(!o.HideSerial)
	sinks, page, err := openSinks(cfg, o, w.serial.Load)
	if err != nil {
		return nil, err
	}
	bus := event.NewBus(append(sinks, w.blocks)...)
	if !cfg.KeepState {
		bus.Say("", "Machine state will be reset. To keep it, pass --keep-machine-state")
	}
	d, err := newDriver(ctx, cfg, bus, w)
	if err != nil {
		bus.Emit(event.TestFinished{Failure: err.Error()})
		return nil, errors.Join(&RunError{Err: err, code: 3}, bus.Close())
	}
	return &Test{d: d, page: page, begin: time.Now()}, nil
}

// Machine returns the machine of that name. Its methods start it when they
// need it.
func (t *Test) Machine(name string) (*machine.Guest, error) {
	m, err := t.d.machine(name)
	if err != nil {
		return nil, err
	}
	return t.d.guest(m, script.Environment{}), nil
}

// Machines returns all machines of the test, sorted by name.
func (t *Test) Machines() []*machine.Guest {
	var all []*machine.Guest
	for _, m := range t.d.cfg.Machines {
		if g, err := t.Machine(m.Name); err == nil { // they are all there
			all = append(all, g)
		}
	}
	return all
}

// StartAll starts all machines at once and returns when they run, which is
// before their shells answer.
func (t *Test) StartAll(ctx context.Context) error {
	return t.d.startAll(ctx, script.Environment{})
}

// SucceedAll runs a command on all named machines at once (on all of the test
// when there are no names), where it must exit with status 0, and returns the
// outputs by machine. A zero timeout means that only ctx limits it.
func (t *Test) SucceedAll(ctx context.Context, command string, timeout time.Duration, names ...string) (map[string]string, error) {
	if len(names) == 0 {
		for _, m := range t.d.cfg.Machines {
			names = append(names, m.Name)
		}
	}
	return onEach(t.d, names, func(m machine.Machine) (string, error) {
		return t.d.guest(m, script.Environment{}).Succeed(ctx, []string{command}, timeout)
	})
}

// Subtest runs f as a part of the test that has a name, which reports list
// with its error.
func (t *Test) Subtest(name string, f func() error) error {
	block := t.d.bus.Open(event.BlockOpen{Text: "subtest: " + name, Subtest: name})
	err := f()
	if err == nil {
		block.Close("")
		return nil
	}
	account := fmt.Sprintf(`Test "%s" failed with error: "%s"`, name, err)
	t.d.bus.Emit(event.TestFailure{Lines: strings.Split(account, "\n")})
	block.Close(err.Error())
	return err
}

// Log writes a message to the log.
func (t *Test) Log(text string) { t.d.bus.Say("", text) }

// Fail has the reports say that the test failed, and why.
func (t *Test) Fail(reason error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failure = errors.Join(t.failure, reason)
}

// Close ends the machines at once, frees all that the test holds, and
// completes its reports. The error is what went wrong in that, not what Fail
// was told; a test that failed leaves the same files as with [Run]. It is safe
// to call Close more than once.
func (t *Test) Close() error {
	t.closing.Do(func() {
		t.mu.Lock()
		failure := t.failure
		t.mu.Unlock()
		if failure != nil {
			t.d.postMortem(context.Background(), t.page)
		}
		ended := t.d.close()
		t.finish(errors.Join(failure, ended))
		t.closed = errors.Join(ended, t.d.bus.Close())
	})
	return t.closed
}

// finish reports how the test ended: err is nil when it passed.
func (t *Test) finish(err error) {
	finished := event.TestFinished{Duration: time.Since(t.begin)}
	if err != nil {
		finished.Failure = err.Error()
	}
	t.d.bus.Emit(finished)
}
