package vlan

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fakeSwitch puts a vde_switch that is a shell script first into PATH.
func fakeSwitch(t *testing.T, script string) {
	t.Helper()
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "vde_switch"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
}

func TestProcessThatExits(t *testing.T) {
	fakeSwitch(t, "echo cannot work today >&2; exit 3")
	_, err := StartProcess(t.Context(), 1, shortDir(t), nil)
	const want = `start VLAN 1: vde_switch: exited before it was ready: exit status 3; it printed "cannot work today"`
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestProcessThatIsNeverReady(t *testing.T) {
	fakeSwitch(t, "trap '' TERM; echo hello; exec sleep 60")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var started *exec.Cmd
	_, err := StartProcess(ctx, 1, shortDir(t), func(cmd *exec.Cmd) error {
		started = cmd
		return cmd.Start()
	})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.HasSuffix(err.Error(), `; it printed "hello"`) {
		t.Errorf("got %v", err)
	}
	if err := syscall.Kill(started.Process.Pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the process is still there (%v)", err)
	}
}

func TestProcessWithoutSocket(t *testing.T) {
	fakeSwitch(t, "echo 1000 Success; cat")
	_, err := StartProcess(t.Context(), 1, shortDir(t), nil)
	if err == nil || !strings.Contains(err.Error(), "ready without a socket") {
		t.Errorf("got %v", err)
	}
}

func TestProcessThatCannotStart(t *testing.T) {
	fakeSwitch(t, "")
	refusal := errors.New("no more processes")
	_, err := StartProcess(t.Context(), 1, shortDir(t), func(*exec.Cmd) error { return refusal })
	if !errors.Is(err, refusal) {
		t.Errorf("got %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	_, err = StartProcess(t.Context(), 1, shortDir(t), nil)
	if !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "\nhint: ") {
		t.Errorf("got %v", err)
	}
}

func TestKilledProcess(t *testing.T) {
	p := startVDESwitch(t)
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.exited
	closeSwitch(t, p) // removes what it could not
}
