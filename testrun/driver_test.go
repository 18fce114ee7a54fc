package testrun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/reaper"
	"vm-prebuild/testrun/script"
)

func TestMain(m *testing.M) {
	reaper.Main()
	os.Exit(m.Run())
}

// runtimeDir makes a runtime directory for the drivers of a test.
func runtimeDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "run") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("XDG_RUNTIME_DIR", dir)
	return dir
}

// A driver that cannot be set up undoes what it has done and says so, in the
// JUnit report too.
func TestRunThatCannotBegin(t *testing.T) {
	dir := runtimeDir(t)
	if err := os.WriteFile(filepath.Join(dir, "vde1.ctl"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "script.py")
	if err := os.WriteFile(script, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{VLANs: []int{1}, ScriptPath: script, OutDir: dir}
	var log bytes.Buffer
	err := Run(t.Context(), cfg, Options{Log: &log, LogLevel: event.Info, JUnit: "junit.xml"})
	var failed *RunError
	if !errors.As(err, &failed) || failed.ExitCode() != 3 || !strings.Contains(err.Error(), "VLAN 1: ") {
		t.Errorf("error %v, want one of exit code 3 that names the VLAN", err)
	}
	report, err := os.ReadFile(filepath.Join(dir, "junit.xml"))
	if err != nil || !strings.Contains(string(report), `failures="1"`) {
		t.Errorf("JUnit report: %v\n%s", err, report)
	}
	// Its directories are free again.
	d, err := claimDirectories(true)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.release(); err != nil {
		t.Error(err)
	}
}

// fake is a machine whose guest takes every command. The operations that it
// lacks are not called.
type fake struct {
	machine.Machine
	running, connected bool
	commands           []string
}

func (f *fake) Name() string                                            { return "fake" }
func (f *fake) Start(context.Context, machine.StartOptions) error       { return nil }
func (f *fake) Shell(context.Context) (machine.Shell, error)            { return f, nil }
func (f *fake) Running() bool                                           { return f.running }
func (f *fake) Connected() bool                                         { return f.connected }
func (f *fake) Disconnect()                                             { f.connected = false }
func (f *fake) Send(_ context.Context, _ string, _ time.Duration) error { return nil }
func (f *fake) Run(_ context.Context, command string, _ time.Duration) (machine.Result, error) {
	f.commands = append(f.commands, command)
	return machine.Result{}, nil
}

// Disks are written back for a later run that keeps them, and nobody waits for
// a guest that the script has not used.
func TestSyncDisks(t *testing.T) {
	machines := map[string]*fake{"up": {running: true, connected: true}, "booting": {running: true}, "off": {}}
	d := &driver{bus: event.NewBus(), machines: map[string]machine.Machine{}}
	for name, m := range machines {
		d.machines[name] = m
		d.cfg.Machines = append(d.cfg.Machines, MachineConfig{Name: name})
	}
	if err := d.syncDisks(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, m := range machines {
		if got, want := strings.Join(m.commands, ";"), map[string]string{"up": "sync"}[name]; got != want {
			t.Errorf("machine %s got %q, want %q", name, got, want)
		}
		result, err := d.Call(t.Context(), script.Request{Machine: name, Method: "is_up"})
		if err != nil || result != (name == "up") {
			t.Errorf("is_up of machine %s: %v %v", name, result, err)
		}
	}
}

// Users who share /tmp find each other's files there. (A directory that is not
// ours to write would do as well, but root may write to every directory.)
func TestSharedDirectoryThatIsTaken(t *testing.T) {
	base := runtimeDir(t)
	shared := filepath.Join(base, "shared-xchg")
	if err := os.WriteFile(shared, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := claimDirectories(false); err == nil || !strings.Contains(err.Error(), shared) || !strings.Contains(err.Error(), ownDirectory) {
		t.Errorf("error %v for a shared directory that is none", err)
	}
}

// A lock file that is a link would have another file made or locked.
func TestLockFileThatIsALink(t *testing.T) {
	base := runtimeDir(t)
	target := filepath.Join(base, "target")
	if err := os.Symlink(target, filepath.Join(base, fmt.Sprintf(".nixos-test-run-%d.lock", os.Getuid()))); err != nil {
		t.Fatal(err)
	}
	if _, err := claimDirectories(false); !errors.Is(err, unix.ELOOP) || !strings.Contains(err.Error(), ownDirectory) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Lstat(target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link's target: %v", err)
	}
}

func TestTwoDriversSideBySide(t *testing.T) {
	base := runtimeDir(t)
	first, err := claimDirectories(false)
	if err != nil {
		t.Fatal(err)
	}
	if first.tmp != base || first.private {
		t.Errorf("the first driver got %s", first.tmp)
	}
	second, err := claimDirectories(false)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(second.tmp) != base || !second.private || filepath.Dir(second.shared) != second.tmp {
		t.Errorf("the second driver got %s and %s", second.tmp, second.shared)
	}
	if _, err := claimDirectories(true); err == nil || !strings.Contains(err.Error(), "hint: wait for it to end") {
		t.Errorf("error %v for a third driver that keeps states", err)
	}
	for _, d := range []directories{second, first} {
		if err := d.release(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(second.tmp); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the second driver's directory: %v", err)
	}
}
