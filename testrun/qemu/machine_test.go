package qemu_test

import (
	"bytes"
	"context"
	"errors"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/qemu"
	"vm-prebuild/testrun/reaper"
	"vm-prebuild/testrun/startcommand"
)

func TestMain(m *testing.M) {
	reaper.Main()
	os.Exit(m.Run())
}

// firmware is a start script for a real QEMU without a disk: its guest is the
// firmware, which never shows a shell. It follows nixpkgs' conventions.
const firmware = `exec qemu-system-x86_64 -machine accel=kvm:tcg -cpu max -m 32 $QEMU_OPTS "$@"`

// newMachine returns a machine whose start script has the given body.
func newMachine(t *testing.T, body string, bootTimeout time.Duration) *qemu.Machine {
	t.Helper()
	m, _ := newGuest(t, body, bootTimeout)
	return m
}

// newGuest returns such a machine, also as a script sees it.
func newGuest(t *testing.T, body string, bootTimeout time.Duration) (*qemu.Machine, *machine.Guest) {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "qemu") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	script := filepath.Join(dir, "run-unit-vm")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "shared"), 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := reaper.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	m := qemu.New(qemu.Config{
		Name:        "unit",
		Command:     startcommand.Command{Script: script},
		Dirs:        machine.Dirs{State: filepath.Join(dir, "state"), Shared: filepath.Join(dir, "shared"), Out: dir},
		ForceTCG:    func() (bool, error) { return true, nil },
		BootTimeout: bootTimeout,
		Bus:         event.NewBus(),
		Reaper:      r,
	})
	t.Cleanup(func() { _ = m.Release() })
	return m, &machine.Guest{Machine: m, Bus: event.NewBus()}
}

func started(t *testing.T) *qemu.Machine {
	t.Helper()
	m := newMachine(t, firmware, 20*time.Second)
	if err := m.Start(t.Context(), machine.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	return m
}

func pid(t *testing.T, m *qemu.Machine) int {
	t.Helper()
	p := m.PID()
	if p == 0 {
		t.Fatal("no process")
	}
	return p
}

func within(t *testing.T, limit time.Duration, f func()) {
	t.Helper()
	begin := time.Now()
	f()
	if took := time.Since(begin); took > limit {
		t.Errorf("took %v, limit %v", took, limit)
	}
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	var e *machine.Error
	if !errors.As(err, &e) {
		t.Errorf("error %v, want one of the machine", err)
		return
	}
	for _, part := range append(parts, `machine "unit"`) {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
}

func TestScreenshotMonitorAndCrash(t *testing.T) {
	m := started(t)
	if !m.Running() {
		t.Error("not running")
	}
	file := filepath.Join(m.Dirs().Out, "screen.png")
	if err := m.Screenshot(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := png.Decode(bytes.NewReader(data)); err != nil {
		t.Error(err)
	}
	answer, err := m.MonitorCommand(t.Context(), "info status")
	if err != nil || !strings.Contains(answer, "running") {
		t.Errorf("%q %v", answer, err)
	}
	if err := m.Crash(t.Context()); err != nil {
		t.Error(err)
	}
	if m.Running() {
		t.Error("running after a crash")
	}
	// After an expected end it can be started again.
	if err := m.Start(t.Context(), machine.StartOptions{}); err != nil {
		t.Error(err)
	}
}

func TestSIGKILLOfQEMU(t *testing.T) {
	m := started(t)
	failed := make(chan error, 1)
	go func() {
		_, err := m.Shell(t.Context())
		failed <- err
	}()
	if err := syscall.Kill(pid(t, m), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-failed:
		wantError(t, err, "QEMU", "ended unexpectedly: signal: killed")
	case <-time.After(time.Second):
		t.Error("still waiting after a second")
	}
	// It is not silently started again.
	wantError(t, m.Start(t.Context(), machine.StartOptions{}), "ended unexpectedly")
}

// A guest that has powered itself off can be waited for afterwards, and then
// be started again.
func TestMachineThatEndsByItself(t *testing.T) {
	for name, wait := range map[string]func(*machine.Guest, context.Context) error{
		"wait_for_shutdown": (*machine.Guest).WaitForShutdown,
		"shutdown":          (*machine.Guest).Shutdown,
		"crash":             (*machine.Guest).Crash,
	} {
		t.Run(name, func(t *testing.T) {
			m := started(t)
			before := pid(t, m)
			_, err := m.MonitorCommand(t.Context(), "quit")
			for err == nil { // it answers until it ends
				_, err = m.MonitorCommand(t.Context(), "info status")
			}
			wantError(t, err, "ended unexpectedly: exit code 0")
			g := &machine.Guest{Machine: m, Bus: event.NewBus()}
			if err := wait(g, t.Context()); err != nil {
				t.Error(err)
			}
			if err := m.Start(t.Context(), machine.StartOptions{}); err != nil || pid(t, m) == before {
				t.Errorf("started again: %v", err)
			}
		})
	}
}

// TestPanicOfTheGuest has a firmware that only tells the pvpanic device of a
// panic, at I/O port 0x505. It does so again and again: QEMU tells nobody before
// the monitor has said hello.
func TestPanicOfTheGuest(t *testing.T) {
	rom := make([]byte, 64<<10)
	copy(rom[len(rom)-48:], []byte{
		0xba, 0x05, 0x05, // mov $0x505, %dx
		0xb0, 0x01, // mov $1, %al
		0x66, 0xb9, 0, 0, 0, 1, // mov $0x1000000, %ecx
		0x67, 0xe2, 0xfd, // loop . (with %ecx)
		0xee,       // out %al, (%dx)
		0xeb, 0xf4, // jmp to the second mov
	})
	copy(rom[len(rom)-16:], []byte{0xeb, 0xde}) // the reset vector: jmp to the first mov
	m := newMachine(t, firmware+" -bios \"$TMPDIR/rom\"", 20*time.Second)
	if err := os.MkdirAll(m.Dirs().State, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.Dirs().State, "rom"), rom, 0o600); err != nil {
		t.Fatal(err)
	}
	// The guest may be quicker than we are.
	err := m.Start(t.Context(), machine.StartOptions{})
	if err == nil {
		within(t, 5*time.Second, func() { _, err = m.Shell(t.Context()) })
	}
	wantError(t, err, "the guest's kernel panicked")
	// Whoever waits for the end has it, as under nixpkgs' driver.
	within(t, 5*time.Second, func() {
		if err := m.Wait(t.Context()); err != nil || m.Running() {
			t.Errorf("waiting for the end: %v", err)
		}
	})
}

func TestSIGKILLIsNotAShutdown(t *testing.T) {
	m := started(t)
	if err := syscall.Kill(pid(t, m), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	within(t, time.Second, func() {
		wantError(t, m.Wait(t.Context()), "ended unexpectedly: signal: killed")
	})
}

func TestStoppedQEMU(t *testing.T) {
	m := started(t)
	if err := syscall.Kill(pid(t, m), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	within(t, 2*time.Second, func() {
		if _, err := m.MonitorCommand(ctx, "info status"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the deadline", err)
		}
	})
	within(t, 5*time.Second, func() {
		if err := m.Release(); err != nil {
			t.Error(err)
		}
	})
}

func TestGuestWithoutAShell(t *testing.T) {
	m := newMachine(t, "echo a line of the console\n"+firmware, 6*time.Second)
	if err := m.Start(t.Context(), machine.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, func() {
		_, err := m.Shell(t.Context())
		wantError(t, err, "no root shell within 6s", "hint: ", "a line of the console")
	})
}

func TestStartScriptThatFails(t *testing.T) {
	tests := []struct {
		name, body string
		parts      []string
	}{
		{"exits at once", "echo out of luck >&2; exit 9", []string{"ended unexpectedly: exit code 9", "out of luck"}},
		{"exits with 0", "true", []string{"ended unexpectedly: exit code 0"}},
		{"bad QEMU option", `exec qemu-system-x86_64 -no-such-option "$@"`, []string{"exit code 1", "-no-such-option"}},
		{"never becomes QEMU", "sleep 600", []string{"QEMU did not connect within 2s"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t, test.body, 2*time.Second)
			within(t, 6*time.Second, func() {
				wantError(t, m.Start(t.Context(), machine.StartOptions{}), test.parts...)
			})
		})
	}
}

func TestStartScriptThatWantsAVLAN(t *testing.T) {
	m := newMachine(t, `exec qemu-system-x86_64 -machine accel=tcg -netdev vde,id=vlan7,sock="$QEMU_VDE_SOCKET_7" "$@"`, 20*time.Second)
	err := m.Start(t.Context(), machine.StartOptions{})
	wantError(t, err, "ended unexpectedly: exit code 1\nhint: the start command wants a VLAN that this test does not have", "--vlans")
}

func TestStartIsGivenUpWithItsContext(t *testing.T) {
	m := newMachine(t, "sleep 600", time.Minute)
	cause := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, cause)
	defer cancel()
	within(t, 5*time.Second, func() {
		if err := m.Start(ctx, machine.StartOptions{}); !errors.Is(err, cause) {
			t.Errorf("error %v", err)
		}
	})
}

func TestSocketPathTooLong(t *testing.T) {
	m := newMachine(t, firmware, time.Second)
	long := qemu.New(qemu.Config{
		Name:    "unit",
		Command: startcommand.Command{Line: "true"},
		Dirs:    machine.Dirs{State: filepath.Join(m.Dirs().Out, strings.Repeat("x", 100))},
		Bus:     event.NewBus(),
	})
	wantError(t, long.Start(t.Context(), machine.StartOptions{}), "107", "hint: set XDG_RUNTIME_DIR")
}
