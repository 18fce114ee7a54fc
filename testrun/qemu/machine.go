// Package qemu is the backend that runs machines as QEMU processes: it starts
// them through the start scripts of nixpkgs, talks QMP and the backdoor shell
// to them, and reads their serial console. [New] makes a [Machine], which has
// every capability of package machine.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/reaper"
	"vm-prebuild/testrun/startcommand"
)

// Config describes one machine.
type Config struct {
	Name        string
	Command     startcommand.Command
	Dirs        machine.Dirs
	ForceTCG    func() (bool, error) // whether the guest must not run under KVM; nil: it may
	Display     bool                 // show the guest's screen in a window
	BootTimeout time.Duration        // from the start script to QMP, and again to the shell
	// StreamOutput reports standard output of commands while they run, which
	// costs a process for each.
	StreamOutput bool
	Bus          *event.Bus
	Reaper       *reaper.Reaper
}

// Machine is one QEMU machine. Its methods are safe for concurrent use.
type Machine struct {
	cfg Config

	starting chan struct{} // holds one token: who may start or connect

	mu      sync.Mutex
	used    bool          // has started, or been restored, for the test
	disk    string        // what later runs have as NIX_DISK_IMAGE; "" for what they have anyway
	process *process      // nil before the first start and after an expected end
	past    []string      // console of ended processes
	moved   *machine.Dirs // since SetDirs
	lastPID int

	lastConsole *console // of the process whose end was expected; may be nil
	lastEvents  *eventLog
	keys        keyQueue
}

// New returns a machine that has not been started. It does not touch the
// machine's directories.
func New(cfg Config) *Machine {
	m := &Machine{cfg: cfg, starting: make(chan struct{}, 1)}
	m.starting <- struct{}{}
	return m
}

// Name implements machine.Machine.
func (m *Machine) Name() string { return m.cfg.Name }

// Start implements machine.Machine. A machine that ended without having been
// asked to is not started again: the error tells how it ended.
func (m *Machine) Start(ctx context.Context, o machine.StartOptions) error {
	select {
	case <-m.starting:
		defer func() { m.starting <- struct{}{} }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if p := m.current(); p != nil {
		return p.death()
	}
	var r run
	if !hasVariable(environment(o), "NIX_DISK_IMAGE") {
		m.mu.Lock()
		r.state.Disk = m.disk
		m.mu.Unlock()
	}
	err := m.start(ctx, o, "starting vm", r)
	if err == nil {
		m.mu.Lock()
		m.used = true
		m.mu.Unlock()
	}
	return err
}

// start makes a run of QEMU that of the machine. Whoever calls it holds the token
// of starting, and there is no such run yet.
func (m *Machine) start(ctx context.Context, o machine.StartOptions, title string, r run) error {
	return m.cfg.Bus.Nested(m.cfg.Name, title, func() error {
		p, err := m.execute(ctx, o, r)
		if err != nil {
			return err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.process, m.lastPID = p, p.pid()
		m.cfg.Bus.Say(m.cfg.Name, fmt.Sprintf("QEMU running (pid %d)", p.pid()))
		return nil
	})
}

// execute starts QEMU.
func (m *Machine) execute(ctx context.Context, o machine.StartOptions, r run) (*process, error) {
	cfg := m.cfg
	cfg.Dirs = m.Dirs()
	if o.SharedDir != "" {
		cfg.Dirs.Shared = o.SharedDir
	}
	return start(ctx, cfg, o, r)
}

// current is the process that runs or has ended unexpectedly; nil otherwise.
func (m *Machine) current() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.process
}

// live returns the running process.
func (m *Machine) live() (*process, error) {
	p := m.current()
	if p == nil {
		return nil, machine.Errorf(m.cfg.Name, "is not running\nhint: call start() first")
	}
	return p, p.death()
}

// ended takes note that the end of p was expected.
func (m *Machine) ended(p *process) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == p {
		m.past = append(m.past, p.console.lines()...)
		m.lastConsole, m.lastEvents = p.console, p.events
		m.process = nil
	}
}

// Shell implements machine.Machine.
func (m *Machine) Shell(ctx context.Context) (machine.Shell, error) {
	p, err := m.live()
	if err != nil {
		return nil, err
	}
	select {
	case <-m.starting:
		defer func() { m.starting <- struct{}{} }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	sh := guestShell{p, p.shell}
	if p.connected.Load() {
		return sh, nil
	}
	err = m.cfg.Bus.Nested(m.cfg.Name, "waiting for the VM to finish booting", func() error {
		return p.connect(ctx)
	})
	return sh, err
}

// Connected implements machine.Connector.
func (m *Machine) Connected() bool {
	p := m.current()
	return p != nil && p.connected.Load()
}

// Disconnect implements machine.Connector.
func (m *Machine) Disconnect() {
	if p := m.current(); p != nil {
		p.connected.Store(false)
	}
}

// PID is the number of the machine's process; 0 when it does not run.
func (m *Machine) PID() int {
	p := m.current()
	if p == nil || p.death() != nil {
		return 0
	}
	return p.pid()
}

// LastPID is the number of the last process; 0 before the first.
func (m *Machine) LastPID() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lastPID
}

// Running implements machine.Machine.
func (m *Machine) Running() bool {
	p := m.current()
	return p != nil && p.death() == nil
}

// Wait implements machine.Machine.
func (m *Machine) Wait(ctx context.Context) error {
	p := m.current()
	if p == nil {
		return nil
	}
	p.asked.Store(true)
	select {
	case <-p.ctx.Done():
	case <-ctx.Done():
		p.asked.Store(false)
		return context.Cause(ctx)
	}
	// A panic is an end, too; nixpkgs' driver does not even notice it. QEMU may
	// stay then, and so may the guest when QEMU has stopped it.
	panicked := errors.Is(p.death(), errPanicked)
	if panicked {
		m.cfg.Bus.Log(event.Warning, m.cfg.Name, "the machine ended because the guest's kernel panicked")
	}
	select {
	case <-p.exited:
	case <-time.After(killGrace):
		p.kill()
	}
	if p.killed && !panicked {
		return p.death() // not how a guest powers off
	}
	m.ended(p)
	return nil
}

// Console implements machine.Machine.
func (m *Machine) Console() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	lines := append([]string(nil), m.past...)
	if m.process != nil {
		lines = append(lines, m.process.console.lines()...)
	}
	return lines
}

// Release implements machine.Machine.
func (m *Machine) Release() error {
	p := m.current()
	if p == nil {
		return nil
	}
	if p.death() == nil {
		m.cfg.Bus.Say(m.cfg.Name, fmt.Sprintf("kill QemuMachine (pid %d)", p.pid()))
	}
	p.kill()
	m.ended(p)
	return nil
}

// answerLimit bounds how long QEMU may take to answer the monitor, and to quit.
const answerLimit = 10 * time.Second

// Crash implements machine.Crasher.
func (m *Machine) Crash(ctx context.Context) error {
	p := m.current()
	if p == nil {
		return nil
	}
	quit, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	p.asked.Store(true)
	// A QEMU that does not take the command is killed below all the same.
	_ = p.monitor.Quit(quit)
	select {
	case <-p.exited:
	case <-quit.Done():
	}
	p.kill()
	m.ended(p)
	return context.Cause(ctx)
}

// Reboot implements machine.Rebooter.
func (m *Machine) Reboot(ctx context.Context) error {
	if _, err := m.MonitorCommand(ctx, "sendkey ctrl-alt-delete"); err != nil {
		return err
	}
	m.Disconnect()
	return nil
}

// MonitorCommand implements machine.Monitor.
func (m *Machine) MonitorCommand(ctx context.Context, line string) (answer string, err error) {
	err = m.ask(ctx, "monitor command "+line, func(ctx context.Context, p *process) error {
		answer, err = p.monitor.HumanCommand(ctx, line)
		return err
	})
	return answer, err
}

// SetLinks implements machine.Linker: it cuts or restores every link to a VLAN
// and leaves the user network alone.
func (m *Machine) SetLinks(ctx context.Context, up bool) error {
	network, err := m.MonitorCommand(ctx, "info network")
	if err != nil {
		return err
	}
	return m.ask(ctx, "changing links", func(ctx context.Context, p *process) error {
		for _, nic := range vlanCards(network) {
			if err := p.monitor.SetLink(ctx, nic, up); err != nil {
				return err
			}
		}
		return nil
	})
}

// vlanCards picks the network cards that are attached to a VDE switch from the
// answer to "info network", where a card's line is followed by its peer's:
//
//	virtio-net-pci.1: index=0,type=nic,model=virtio-net-pci,macaddr=…
//	 \ vlan1: index=0,type=vde,sock=…
func vlanCards(network string) []string {
	var cards []string
	card := ""
	for line := range strings.Lines(network) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch {
		case !strings.HasPrefix(name, `\ `):
			card = name
		case card != "" && strings.Contains(rest, "type=vde"):
			cards = append(cards, card)
		}
	}
	return cards
}

// ask calls f with the live process and a context that also ends when QEMU
// does not answer in time, or dies.
func (m *Machine) ask(ctx context.Context, what string, f func(context.Context, *process) error) error {
	p, err := m.live()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, answerLimit, fmt.Errorf("QEMU did not answer within %v", answerLimit))
	defer cancel()
	ctx, unbind := p.bind(ctx)
	defer unbind()
	if err := f(ctx, p); err != nil {
		if dead := p.deathBehind(err); dead != nil {
			return dead
		}
		return machine.Errorf(m.cfg.Name, "%s: %w", what, err)
	}
	return nil
}

// writeFile writes file by way of a temporary name beside it.
func writeFile(file string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(data); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Chmod(0o644); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}
