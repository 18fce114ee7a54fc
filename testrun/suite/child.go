package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/reaper"
)

// child is a driver process to be.
type child struct {
	path   string
	args   []string
	dir    string
	env    []string
	output *os.File // gets stdout and stderr
	grace  time.Duration
}

// runGroup runs c as the leader of a new process group and waits for its end.
// When ctx ends, c gets SIGTERM, so that a driver can end its machines, and
// after the grace period the group gets SIGKILL. When c has ended, SIGKILL ends
// what it left in its group. The group also dies when this process does.
//
// The error is about starting the process only.
func runGroup(ctx context.Context, reap *reaper.Reaper, c child) (*os.ProcessState, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	cmd := exec.Command(c.path, c.args...) //nolint:noctx // ended below, more gently than CommandContext would
	cmd.Dir, cmd.Env = c.dir, c.env
	// A file, not a pipe: Wait would wait for every process that holds a pipe.
	cmd.Stdout, cmd.Stderr = c.output, c.output
	if err := reap.Spawn(cmd); err != nil {
		return nil, fmt.Errorf("starting the driver: %w", err)
	}
	pid := cmd.Process.Pid

	exited := make(chan struct{})
	var ender sync.WaitGroup
	ender.Go(func() {
		select {
		case <-exited:
			return
		case <-ctx.Done():
		}
		_ = syscall.Kill(pid, syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(c.grace):
			_ = syscall.Kill(-pid, syscall.SIGKILL)
		}
	})
	// Until Wait below has collected the child, its number belongs to nobody else,
	// and so all signals are sent before.
	waitExited(pid)
	close(exited)
	ender.Wait()
	reap.Kill(pid)
	_ = cmd.Wait() // the state says it all
	return cmd.ProcessState, nil
}

// waitExited waits for the end of a child without collecting it.
func waitExited(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// verdict reads the end of a driver that nobody ended. Ours exits with 124 on
// its global time-out; nixpkgs' sends itself SIGTERM, which a shell in between
// turns into 143.
func verdict(state *os.ProcessState, t Test) (Status, string) {
	status := state.Sys().(syscall.WaitStatus)
	if status.Signaled() && status.Signal() != syscall.SIGTERM {
		return Error, "the driver was ended by signal: " + status.Signal().String()
	}
	switch code := state.ExitCode(); {
	case status.Signaled(), code == 124, code == 128+int(syscall.SIGTERM):
		return TimedOut, fmt.Sprintf("global time-out of %v", t.GlobalTimeout())
	case code == 2:
		return Error, "the driver refused its configuration (exit code 2)"
	case code == 3:
		return Error, "a machine or something else that the test needs failed (exit code 3)"
	case code == 126, code == 127:
		return Error, fmt.Sprintf("%s could not be executed (exit code %d)", filepath.Base(t.Driver), code)
	default:
		return Failed, fmt.Sprintf("the test script failed (exit code %d)", code)
	}
}

// tail returns up to n last lines of a file, of its last 64 KiB; none when it
// cannot be read.
func tail(path string, n int) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	const most = 64 << 10
	if info, err := f.Stat(); err == nil && info.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	data, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil || len(data) == 0 {
		return nil
	}
	text := strings.ToValidUTF8(strings.TrimRight(string(data), "\r\n"), "\uFFFD")
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, "\r")
	}
	return lines[max(0, len(lines)-n):]
}
