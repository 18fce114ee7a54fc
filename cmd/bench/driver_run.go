package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// driverRun is a run of a driver with a script that prints what it has measured:
//
//	BENCH NAME VALUE
//
// NAME idle-begin is when to look at the driver's CPU time, and idle-… when to
// look again: VALUE is replaced by the part of a core that was used since.
type driverRun struct {
	args, env    []string
	machineWords []string // of command lines that are machines'
	memory       bool     // look at the memory, all the time

	marks     []mark
	maxMemory int64
	log       tail
}

type mark struct {
	name  string
	value float64
}

// runLimit is for a driver that hangs: no run takes half of it.
const runLimit = 5 * time.Minute

// run runs it and returns when it began.
func (s *driverRun) run(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.args[0], s.args[1:]...)
	cmd.WaitDelay = 5 * time.Second // for who keeps our end of its log open
	cmd.Env = s.env
	cmd.Stderr = &s.log
	// What is left of it must not disturb the next.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return time.Time{}, err
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return begin, err
	}
	var wg sync.WaitGroup
	ended := make(chan struct{})
	if s.memory {
		wg.Go(func() { s.watchMemory(cmd.Process.Pid, ended) })
	}
	readErr := s.read(stdout, cmd.Process.Pid)
	err = cmd.Wait()
	close(ended)
	wg.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // nothing is left when all went well
	if err != nil {
		return begin, fmt.Errorf("%s: %w\n%s", strings.Join(s.args, " "), err, s.log.String())
	}
	return begin, readErr
}

func (s *driverRun) read(stdout io.Reader, pid int) error {
	var cpu time.Duration
	var since time.Time
	scanner := bufio.NewScanner(stdout)
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		if len(fields) != 3 || fields[0] != "BENCH" {
			continue
		}
		value, err := strconv.ParseFloat(fields[2], 64)
		if err != nil {
			return fmt.Errorf("a script printed %q: %w", scanner.Text(), err)
		}
		if strings.HasPrefix(fields[1], "idle-") {
			all, err := driverProcesses(pid, s.machineWords...)
			if err != nil {
				return err
			}
			used, at := all.cpu(), time.Now()
			value = (used - cpu).Seconds() / at.Sub(since).Seconds()
			cpu, since = used, at
		}
		s.marks = append(s.marks, mark{fields[1], value})
	}
	return scanner.Err()
}

func (s *driverRun) watchMemory(pid int, ended <-chan struct{}) {
	for {
		if all, err := driverProcesses(pid, s.machineWords...); err == nil {
			s.maxMemory = max(s.maxMemory, all.memory())
		}
		select {
		case <-ended:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// missing is what the other side says of modules that it would import.
func (s *driverRun) missing() string {
	for line := range strings.Lines(s.log.first) {
		if _, rest, ok := strings.Cut(line, "not imported: "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// tail keeps the beginning and the end of what is written to it.
type tail struct {
	first, last string
}

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	if len(t.first) < tailSize {
		t.first += string(p)
	}
	t.last += string(p)
	t.last = t.last[max(0, len(t.last)-tailSize):]
	return len(p), nil
}

func (t *tail) String() string { return t.last }
