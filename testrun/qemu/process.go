package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/qmp"
	"vm-prebuild/testrun/shell"
	"vm-prebuild/testrun/startcommand"
)

// killGrace is how long QEMU may take to end after SIGTERM, in which it
// writes back its disk images.
const killGrace = 2 * time.Second

// process is one run of QEMU, from its start script to its end.
type process struct {
	cfg     Config
	cmd     *exec.Cmd
	stdin   *os.File
	stdout  *os.File // the end from which console reads
	console *console
	events  *eventLog
	typing  sync.Mutex // held by who writes to stdin

	// Set once, by adopt, before start returns; guarded by mu until then.
	mu      sync.Mutex
	monitor *qmp.Monitor
	shell   *shell.Conn
	ended   bool // watch has been here: it is too late to adopt anything

	connected atomic.Bool // the shell has answered since the last boot
	greeted   atomic.Bool // the shell has answered since the start

	started   machine.StartOptions
	run       run
	asked     atomic.Bool  // to end, or its end is awaited
	qemuPID   atomic.Int64 // of QEMU itself, which the start script need not have become
	diskError atomic.Pointer[string]
	shutdown  atomic.Pointer[string] // reason of QEMU's event SHUTDOWN
	oomKills  int64                  // of this host, before the start
	snapshots snapshots

	// ctx ends with the process; its cause says how it ended.
	ctx    context.Context
	cancel context.CancelCauseFunc
	killed bool          // valid once exited is closed
	heard  chan struct{} // closed when there are no more events of QEMU
	exited chan struct{} // closed after ctx has ended and everything is closed
}

// run is how a run of QEMU differs from that of a machine that boots.
type run struct {
	state   startcommand.State
	files   machine.StateFiles // of the state that is to be written or read
	shell   *shell.Saved       // of the guest that is restored; nil for one that boots
	console []string           // what the guest wrote before it was saved
	found   []fileIdentity     // files of a machine that is to be saved, before it ran

	// ready is called once QMP answers, and its error ends the run; may be nil.
	ready func(context.Context, *process) error
}

// start executes the start script and returns once QEMU runs the guest.
func start(ctx context.Context, cfg Config, o machine.StartOptions, r run) (*process, error) {
	fail := func(err error) (*process, error) {
		return nil, machine.Errorf(cfg.Name, "starting: %w", err)
	}
	if err := cfg.Command.Check(); err != nil {
		return fail(err)
	}
	if err := os.MkdirAll(cfg.Dirs.State, 0o700); err != nil {
		return fail(err)
	}
	sockets, err := listenAll(cfg)
	if err != nil {
		return fail(err)
	}
	defer sockets.close()

	forceTCG := false
	if cfg.ForceTCG != nil {
		if forceTCG, err = cfg.ForceTCG(); err != nil {
			return fail(err)
		}
	}
	p := &process{cfg: cfg, started: o, run: r, oomKills: oomKills(), heard: make(chan struct{}), exited: make(chan struct{}), console: newConsole(), events: newEventLog()}
	p.console.text = slices.Clone(r.console)
	p.ctx, p.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	p.cmd, err = cfg.Command.Build(environment(o), startcommand.Options{
		QMPSocket:    sockets.path("qmp"),
		ShellSocket:  sockets.path("shell"),
		StderrSocket: sockets.path("stderr"),
		DataSocket:   sockets.path("data"),
		OutputSocket: sockets.path("output"),
		StateDir:     cfg.Dirs.State,
		SharedDir:    cfg.Dirs.Shared,
		AllowReboot:  o.AllowReboot,
		Display:      cfg.Display,
		ForceTCG:     forceTCG,
		State:        r.state,
	})
	if err != nil {
		return fail(err)
	}
	if err := p.spawn(); err != nil {
		return fail(err)
	}

	ctx, cancel := context.WithTimeoutCause(ctx, cfg.BootTimeout, fmt.Errorf("QEMU did not connect within %v", cfg.BootTimeout))
	defer cancel()
	ctx, unbind := p.bind(ctx)
	defer unbind()
	err = p.meet(ctx, sockets)
	if err == nil && r.ready != nil {
		err = r.ready(ctx, p)
	}
	if err != nil {
		if dead := p.deathBehind(err); dead != nil {
			err = dead
		} else {
			err = &machine.Error{Machine: cfg.Name, Err: fmt.Errorf("starting: %w", err), Console: machine.Tail(p.console.lines())}
		}
		p.kill()
		return nil, err
	}
	return p, nil
}

// spawn executes the start script and begins to watch it.
func (p *process) spawn() error {
	stdin, toGuest, err := os.Pipe()
	if err != nil {
		return err
	}
	defer stdin.Close()
	fromGuest, stdout, err := os.Pipe()
	if err != nil {
		toGuest.Close()
		return err
	}
	defer stdout.Close()
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = stdin, stdout, stdout
	p.stdin, p.stdout = toGuest, fromGuest
	if err := p.cfg.Reaper.Spawn(p.cmd); err != nil {
		toGuest.Close()
		fromGuest.Close()
		return err
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		p.console.read(fromGuest, func(line string) {
			p.cfg.Bus.Emit(event.Serial{Machine: p.cfg.Name, Text: line})
		})
	}()
	go p.watch(fromGuest, drained)
	return nil
}

// watch waits for the process to end and closes what belongs to it.
func (p *process) watch(fromGuest *os.File, drained <-chan struct{}) {
	err := p.cmd.Wait()
	// What the start script has put in the background (virtiofsd, swtpm) ends
	// with QEMU, and with it the last writer to the console.
	p.cfg.Reaper.Kill(p.pid())
	_ = fromGuest.SetReadDeadline(time.Now().Add(time.Second))
	<-drained
	fromGuest.Close()
	p.stdin.Close()
	p.hearAll()
	reason := p.exitText(err)
	p.cancel(&machine.Error{
		Machine: p.cfg.Name,
		Err:     fmt.Errorf("%s ended unexpectedly: %s", p.label(), reason),
		Console: machine.Tail(p.console.lines()),
	})
	p.cfg.Bus.Emit(event.MachineStopped{Machine: p.cfg.Name, Reason: reason, Expected: p.asked.Load()})
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	if p.monitor != nil {
		p.monitor.Close()
		p.shell.Close()
	}
	p.killed = p.cmd.ProcessState.ExitCode() < 0 // by a signal that QEMU did not handle
	close(p.exited)
}

// hearAll waits until the last events of a QEMU that has ended were heeded.
func (p *process) hearAll() {
	if !p.met() {
		return
	}
	select {
	case <-p.heard:
	case <-time.After(time.Second): // something else has the connection open
	}
}

// met says whether QMP has answered.
func (p *process) met() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.monitor != nil
}

// label names the process in an error: before QMP has answered it may still be
// the start script.
func (p *process) label() string {
	if !p.met() {
		return fmt.Sprintf("start command %s", p.cfg.Command)
	}
	return fmt.Sprintf("QEMU (pid %d)", p.pid())
}

// connect waits for the guest's shell.
func (p *process) connect(ctx context.Context) error {
	limit := p.cfg.BootTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf(
		"the guest showed no root shell within %v\nhint: does the guest run backdoor.service? its console is below; a slow host may want a longer --boot-timeout", limit))
	defer cancel()
	begin := time.Now()
	bound, unbind := p.bind(ctx)
	defer unbind()
	var err error
	if p.run.shell == nil || p.greeted.Load() {
		err = p.shell.Connect(bound, func(line string) {
			p.cfg.Bus.Say(p.cfg.Name, fmt.Sprintf("Guest shell says: %q", line))
		})
	}
	if err != nil {
		return p.shellError(err)
	}
	p.connected.Store(true)
	p.greeted.Store(true)
	p.cfg.Bus.Emit(event.MachineConnected{Machine: p.cfg.Name, Duration: time.Since(begin)})
	p.cfg.Bus.Say(p.cfg.Name, "connected to guest root shell")
	p.cfg.Bus.Say(p.cfg.Name, fmt.Sprintf("(connecting took %.2f seconds)", time.Since(begin).Seconds()))
	return nil
}

// guestShell is the guest's shell, for everybody or for one who holds it. It
// implements machine.Shell and its capabilities.
type guestShell struct {
	p  *process
	sh interface {
		machine.Shell
		machine.Repeater
		machine.Streamer
		machine.Sleeper
	}
}

// Run implements machine.Shell.
func (s guestShell) Run(ctx context.Context, command string, timeout time.Duration) (r machine.Result, err error) {
	err = s.p.withShell(ctx, func(ctx context.Context) error {
		r, err = s.sh.Run(ctx, command, timeout)
		return err
	})
	return r, err
}

// Repeat implements machine.Repeater.
func (s guestShell) Repeat(ctx context.Context, command string, fail bool, limit, duration time.Duration) (r machine.Result, done bool, err error) {
	err = s.p.withShell(ctx, func(ctx context.Context) error {
		r, done, err = s.sh.Repeat(ctx, command, fail, limit, duration)
		return err
	})
	return r, done, err
}

// Receive implements machine.Streamer.
func (s guestShell) Receive(ctx context.Context, command string, w io.Writer) (r machine.Result, err error) {
	err = s.p.withShell(ctx, func(ctx context.Context) error {
		r, err = s.sh.Receive(ctx, command, w)
		return err
	})
	return r, err
}

// Feed implements machine.Streamer.
func (s guestShell) Feed(ctx context.Context, command string, in io.Reader, n int64) (r machine.Result, err error) {
	err = s.p.withShell(ctx, func(ctx context.Context) error {
		r, err = s.sh.Feed(ctx, command, in, n)
		return err
	})
	return r, err
}

// Sleep implements machine.Sleeper.
func (s guestShell) Sleep(ctx context.Context, program string) (answer string, err error) {
	err = s.p.withShell(ctx, func(ctx context.Context) error {
		answer, err = s.sh.Sleep(ctx, program)
		return err
	})
	return answer, err
}

// Ask implements machine.Sleeper.
func (s guestShell) Ask(ctx context.Context, line string) (answer string, err error) {
	err = s.p.withShell(ctx, func(ctx context.Context) error {
		answer, err = s.sh.Ask(ctx, line)
		return err
	})
	return answer, err
}

// Send implements machine.Shell.
func (s guestShell) Send(ctx context.Context, command string, timeout time.Duration) error {
	return s.p.withShell(ctx, func(ctx context.Context) error {
		return s.sh.Send(ctx, command, timeout)
	})
}

// withShell calls f with a context that also ends with the process.
func (p *process) withShell(ctx context.Context, f func(context.Context) error) error {
	ctx, unbind := p.bind(ctx)
	defer unbind()
	err := f(ctx)
	if shell.Rebooted(err) {
		p.connected.Store(false)
	}
	if err != nil {
		return p.shellError(err)
	}
	return nil
}

// shellError explains an error of the shell by the end of the process, if that
// is what it comes from, and adds the console.
func (p *process) shellError(err error) error {
	if dead := p.deathBehind(err); dead != nil {
		return dead
	}
	var known *machine.Error
	if errors.As(err, &known) {
		return err
	}
	if why := p.stalled(); why != "" {
		err = fmt.Errorf("%s: %w", why, err) // hints come last
	}
	return &machine.Error{Machine: p.cfg.Name, Err: err, Console: machine.Tail(p.console.lines())}
}

// bind returns a context that also ends with the process, and then has its
// death as cause.
func (p *process) bind(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(p.ctx, func() { cancel(context.Cause(p.ctx)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// death says how the process ended; nil while it runs.
func (p *process) death() error {
	if p.ctx.Err() == nil {
		return nil
	}
	return context.Cause(p.ctx)
}

// deathBehind returns how the process ended if that is what err comes from. A
// broken connection is seen a moment before the process is gone.
func (p *process) deathBehind(err error) error {
	if errors.Is(err, shell.ErrClosed) || errors.Is(err, qmp.ErrClosed) {
		select {
		case <-p.ctx.Done():
		case <-time.After(killGrace):
		}
	}
	return p.death()
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill ends the process and waits until everything of it is gone.
func (p *process) kill() {
	p.asked.Store(true)
	group := -p.pid()
	select {
	case <-p.exited:
		return
	default:
		_ = syscall.Kill(group, syscall.SIGTERM)
	}
	select {
	case <-p.exited:
	case <-time.After(killGrace):
		p.cfg.Reaper.Kill(p.pid())
		<-p.exited
	}
}
