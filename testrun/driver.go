package testrun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/accel"
	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/ocr"
	"vm-prebuild/testrun/qemu"
	"vm-prebuild/testrun/reaper"
	"vm-prebuild/testrun/script"
	"vm-prebuild/testrun/startcommand"
	"vm-prebuild/testrun/vlan"
	"vm-prebuild/testrun/warm"
)

// driver owns everything of one running test. It executes what the script asks
// for (calls.go).
type driver struct {
	cfg Config
	bus *event.Bus
	watch
	reaper *reaper.Reaper
	dirs   directories
	env    []string // of the machines, beside the script's own: VLAN sockets
	vlans  []vlan.Switch
	ssh    *sshBackdoor // nil for none
	reader *ocr.Engine

	// forceTCG says whether the machines must not run under KVM. It may wait for a
	// probe.
	forceTCG func() (bool, error)

	seed    uint64 // of the VLANs' faults
	logSeed sync.Once

	stopTimer func()

	mu       sync.Mutex
	machines map[string]machine.Machine
	starters map[string]*warm.Starter // of machines that do not just boot

	snapshots *warm.Snapshots
	rollbacks rollbacks
}

// watch is what the reports and the driver have in common.
type watch struct {
	serial       *atomic.Bool // print serial lines
	blocks       *openBlocks
	streamOutput bool // of commands while they run
}

// newDriver claims directories, starts the VLANs and sets up the machines,
// which do not run yet. On error everything is undone.
func newDriver(ctx context.Context, cfg Config, bus *event.Bus, watch watch) (_ *driver, err error) {
	if cfg.BootTimeout == 0 {
		cfg.BootTimeout = DefaultBootTimeout
	}
	seed, err := faultSeed()
	if err != nil {
		return nil, err
	}
	dirs, err := claimDirectories(cfg.KeepState)
	if err != nil {
		return nil, err
	}
	var held []*os.File
	if dirs.lock != nil {
		// The next driver finds nothing of this one, however it ends.
		held = append(held, dirs.lock)
	}
	r, err := reaper.Start(held...)
	if err != nil {
		return nil, errors.Join(err, dirs.release())
	}
	d := &driver{cfg: cfg, seed: seed, bus: bus, watch: watch, reaper: r, dirs: dirs, reader: ocr.New(readers()), machines: map[string]machine.Machine{}, starters: map[string]*warm.Starter{}, stopTimer: func() {}, snapshots: new(warm.Snapshots)}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.dirs.private {
		r.RemoveAtDeath(d.dirs.tmp)
	}
	d.forceTCG = d.chooseAccel(ctx)
	if err := d.startVLANs(ctx); err != nil {
		return nil, err
	}
	if err := d.openSSHBackdoor(ctx); err != nil {
		return nil, err
	}
	for _, m := range cfg.Machines {
		if _, err := d.addMachine(m.Name, d.ssh.attach(m.Name, m.Command), cfg.KeepState); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// chooseAccel finds out what the machines run under. The probe takes a while where
// KVM is broken; nobody waits for it before a machine starts.
func (d *driver) chooseAccel(ctx context.Context) (forceTCG func() (bool, error)) {
	if d.cfg.Accel == AccelTCG {
		return func() (bool, error) { return true, nil }
	}
	probed := make(chan accel.Result, 1)
	go func() { probed <- accel.Probe(ctx) }()
	return sync.OnceValues(func() (bool, error) {
		kvm := <-probed
		if kvm.KVM {
			return false, nil
		}
		if d.cfg.Accel == AccelKVM {
			text := "KVM cannot be used, and the test insists on it: " + kvm.Reason
			if kvm.Hint != "" {
				text += "\nhint: " + kvm.Hint
			}
			return false, errors.New(text)
		}
		text := "KVM cannot be used: " + kvm.Reason + "; the machines run under TCG, which is many times slower"
		if kvm.Hint != "" {
			text += " (hint: " + kvm.Hint + ")"
		}
		d.bus.Log(event.Warning, "", text)
		return true, nil
	})
}

func (d *driver) startVLANs(ctx context.Context) error {
	return d.bus.Nested("", "start all VLans", func() error {
		for _, n := range d.cfg.VLANs {
			dir := filepath.Join(d.dirs.tmp, fmt.Sprintf("vde%d.ctl", n))
			s, err := d.startVLAN(ctx, n, dir)
			if err != nil {
				return fmt.Errorf("VLAN %d: %w", n, err)
			}
			d.vlans = append(d.vlans, s)
			d.env = append(d.env, fmt.Sprintf("QEMU_VDE_SOCKET_%d=%s", n, s.Dir()))
		}
		return nil
	})
}

// addMachine makes a machine known by its name. One of the same name must not
// run.
func (d *driver) addMachine(name string, command startcommand.Command, keepState bool) (machine.Machine, error) {
	if !machineName.MatchString(name) {
		return nil, fmt.Errorf("machine name %q is not a host name", name)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if old := d.machines[name]; old != nil {
		if old.Running() {
			return nil, fmt.Errorf("a machine named %q is running already", name)
		}
		if err := old.Release(); err != nil {
			return nil, err
		}
	}
	state := filepath.Join(d.dirs.tmp, "vm-state-"+name)
	failed := func(err error) (machine.Machine, error) {
		return nil, fmt.Errorf("state directory of machine %q: %w\n%s", name, err, ownDirectory)
	}
	if !keepState {
		if _, err := os.Lstat(state); err == nil {
			d.bus.Say(name, "deleting machine state directory "+state)
			d.bus.Say(name, "if you want to keep the machine state, pass --keep-machine-state")
		}
		if err := os.RemoveAll(state); err != nil {
			return failed(err)
		}
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return failed(err)
	}
	// A window and a console for what commands print are hardware: with them, a state
	// that was saved elsewhere would not fit.
	mayBeWarm := d.cfg.Warm.Enabled()
	m := qemu.New(qemu.Config{
		Name:         name,
		Command:      command,
		Dirs:         machine.Dirs{State: state, Shared: d.dirs.shared, Out: d.cfg.OutDir},
		ForceTCG:     d.forceTCG,
		Display:      !mayBeWarm && (os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != ""),
		BootTimeout:  d.cfg.BootTimeout,
		StreamOutput: !mayBeWarm && d.streamOutput,
		Bus:          d.bus,
		Reaper:       d.reaper,
	})
	d.machines[name] = m
	if mayBeWarm && !keepState {
		d.starters[name] = warm.NewStarter(d.cfg.Warm, d.bus)
	} else {
		delete(d.starters, name)
	}
	return m, nil
}

// machine returns the machine of that name.
func (d *driver) machine(name string) (machine.Machine, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.machines[name]
	if m == nil {
		return nil, fmt.Errorf("there is no machine named %q", name)
	}
	return m, nil
}

// guest is m as a script with environment env uses it.
func (d *driver) guest(m machine.Machine, env script.Environment) *machine.Guest {
	all := env.Env
	if all == nil {
		all = os.Environ()
	}
	all = append(all[:len(all):len(all)], d.env...)
	all = append(all, machineEnv+"="+m.Name())
	g := &machine.Guest{
		Machine:    m,
		Snapshots:  d.snapshots,
		Bus:        d.bus,
		Boot:       machine.StartOptions{Env: all},
		SSHCommand: d.ssh.command(m.Name()),
		Reader:     d.reader,
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if starter := d.starters[m.Name()]; starter != nil {
		g.Starter = starter
	}
	return g
}

// session is the test as its script sees it.
func (d *driver) session() script.Session {
	s := script.Session{
		ScriptPath: d.cfg.ScriptPath,
		VLANs:      d.cfg.VLANs,
		OutDir:     d.cfg.OutDir,
		TmpDir:     d.dirs.tmp,
		Bus:        d.bus,
		Caller:     d,
		KeepGoing:  d.cfg.KeepGoing,
		Subtest:    d.cfg.Subtest,
		DebugHook:  d.cfg.DebugHook,
	}
	for _, m := range d.cfg.Machines {
		i := info(d.machines[m.Name])
		i.StartCommand = m.Command.String()
		s.Machines = append(s.Machines, i)
	}
	return s
}

func info(m machine.Machine) script.MachineInfo {
	dirs := m.Dirs()
	return script.MachineInfo{Name: m.Name(), StateDir: dirs.State, SharedDir: dirs.Shared, OutDir: dirs.Out}
}

// all returns the machines, those of create_machine included.
func (d *driver) all() []machine.Machine {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []machine.Machine
	for _, m := range d.machines {
		all = append(all, m)
	}
	return all
}

// syncDisks has every guest that is up write back its disks: the state
// directories stay, and a later run may keep them. A guest whose shell nobody
// has asked for has nothing of the script's to lose.
func (d *driver) syncDisks(ctx context.Context) error {
	if d.dirs.private {
		return nil
	}
	return d.eachConfigured(func(m machine.Machine) error {
		g := d.guest(m, script.Environment{})
		if !g.Up() {
			return nil
		}
		_, err := g.Execute(ctx, "sync", time.Minute, true)
		if err != nil && ctx.Err() == nil && !m.Running() {
			// The script's last command may be one that makes the guest power off.
			return nil
		}
		return err
	})
}

// close ends all machines at once, then the VLANs, and gives the directories
// back.
func (d *driver) close() error {
	return d.bus.Nested("", "cleanup", func() error {
		var wg sync.WaitGroup
		machines := d.all()
		errs := make([]error, len(machines))
		for i, m := range machines {
			wg.Go(func() {
				if err := m.Release(); err != nil {
					errs[i] = fmt.Errorf("error during cleanup of %s: %w", m.Name(), err)
				}
			})
		}
		wg.Wait()
		for _, s := range d.starters {
			errs = append(errs, s.Close())
		}
		for _, s := range d.vlans {
			errs = append(errs, d.closeVLAN(s))
		}
		errs = append(errs, d.ssh.close())
		d.reaper.Close()
		errs = append(errs, d.dirs.release())
		return errors.Join(errs...)
	})
}

// directories are where a driver keeps sockets and machine states.
type directories struct {
	tmp     string // runtime directory
	shared  string // seen by all machines as /tmp/shared
	private bool   // tmp is ours alone and goes when we do
	lock    *os.File
}

// ownDirectory helps where a directory belongs to someone else, as happens to
// those who share /tmp.
const ownDirectory = "hint: set XDG_RUNTIME_DIR or TMPDIR to a writable directory of your own"

// claimDirectories takes the runtime directory. A second driver of the same user at the same
// time gets a directory of its own inside; with keepState it is refused, as it
// would find other machines' states than it expects.
func claimDirectories(keepState bool) (directories, error) {
	base, err := makeRuntimeDirectory()
	if err != nil {
		return directories{}, err
	}
	d := directories{tmp: base}
	lockPath := filepath.Join(base, fmt.Sprintf(".nixos-test-run-%d.lock", os.Getuid()))
	d.lock, err = os.OpenFile(lockPath, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return directories{}, fmt.Errorf("runtime directory: %w\n%s", err, ownDirectory)
	}
	err = unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		d.lock.Close()
		d.lock = nil
		if keepState {
			return directories{}, fmt.Errorf("another test driver keeps its machines' states in %s\nhint: wait for it to end, or set XDG_RUNTIME_DIR to another directory", base)
		}
		if d.tmp, err = os.MkdirTemp(base, "nixos-test-run-"); err != nil {
			return directories{}, fmt.Errorf("runtime directory: %w", err)
		}
		d.private = true
	} else if err != nil {
		d.lock.Close()
		return directories{}, fmt.Errorf("locking %s: %w", lockPath, err)
	}
	d.shared = filepath.Join(d.tmp, "shared-xchg")
	err = os.MkdirAll(d.shared, 0o700)
	if err == nil {
		err = unix.Access(d.shared, unix.W_OK|unix.X_OK) // another user's, in /tmp
	}
	if err != nil {
		return directories{}, errors.Join(fmt.Errorf("shared directory %s: %w\n%s", d.shared, err, ownDirectory), d.release())
	}
	return d, nil
}

func (d directories) release() error {
	if d.private {
		return os.RemoveAll(d.tmp)
	}
	if d.lock != nil {
		return d.lock.Close()
	}
	return nil
}
