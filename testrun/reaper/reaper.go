// Package reaper starts child processes that cannot outlive the process that
// started them, not even when it is killed with SIGKILL.
//
// Two means work together. Every child is started with PR_SET_PDEATHSIG, so
// the kernel kills it when we die; and a small supervisor process (this very
// executable, see [Main]) holds the read end of a pipe and kills the process
// group of every child, grandchildren included, when the pipe breaks.
// [Start] starts the supervisor, [Reaper.Spawn] starts children.
package reaper

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// supervisorEnv tells a process that it is to be the supervisor.
const supervisorEnv = "VM_PREBUILD_SUPERVISOR"

// Main runs the supervisor and exits if this process was started as one, and
// returns at once otherwise. A program that uses this package calls it first
// of all in main (a test, in TestMain).
func Main() {
	if os.Getenv(supervisorEnv) == "" {
		return
	}
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	supervise(os.Stdin)
	os.Exit(0)
}

// supervise obeys lines of "+PGID" (watch), "-PGID" (forget) and "d DIR"
// (remove in the end). At the end of its input it kills and removes what is
// left.
func supervise(commands io.Reader) {
	groups := map[int]bool{}
	dirs := map[string]bool{}
	lines := bufio.NewScanner(commands)
	for lines.Scan() {
		line := lines.Text()
		if dir, ok := strings.CutPrefix(line, "d "); ok {
			dirs[dir] = true
			continue
		}
		pgid, err := strconv.Atoi(strings.TrimLeft(line, "+-"))
		if err != nil || pgid <= 1 {
			continue // a line cut short by the parent's death
		}
		groups[pgid] = strings.HasPrefix(line, "+")
	}
	for pgid, watched := range groups {
		if watched {
			_ = syscall.Kill(-pgid, syscall.SIGKILL)
		}
	}
	for dir := range dirs {
		_ = os.RemoveAll(dir)
	}
}

// Reaper owns the supervisor and starts children. Its methods are safe for
// concurrent use.
type Reaper struct {
	spawn chan func()
	wg    sync.WaitGroup
	cmd   *exec.Cmd

	mu     sync.Mutex
	pipe   *os.File
	groups map[int]bool
}

// Start starts the supervisor.
func Start() (*Reaper, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("starting the supervisor: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting the supervisor: %w", err)
	}
	defer r.Close()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), supervisorEnv+"=1")
	cmd.Stdin = r
	// Its own session: a Ctrl-C at the terminal must not reach it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, fmt.Errorf("starting the supervisor: %w", err)
	}
	p := &Reaper{spawn: make(chan func()), cmd: cmd, pipe: w, groups: map[int]bool{}}
	p.wg.Go(func() {
		// PR_SET_PDEATHSIG fires when the *thread* that forked ends, so all
		// forks happen on this one, which lives as long as the reaper.
		runtime.LockOSThread()
		for f := range p.spawn {
			f()
		}
	})
	return p, nil
}

// Spawn starts cmd in a process group of its own, unless cmd.SysProcAttr asks
// for another, and has it killed when this process dies. After cmd.Wait the
// caller calls [Reaper.Kill] to end what the child left behind.
func (p *Reaper) Spawn(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error)
	p.spawn <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return err
	}
	if cmd.SysProcAttr.Setpgid || cmd.SysProcAttr.Setsid {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.groups[cmd.Process.Pid] = true
		p.tell("+" + strconv.Itoa(cmd.Process.Pid))
	}
	return nil
}

// Kill kills the process group that Spawn made for the process pid, and
// forgets it.
func (p *Reaper) Kill(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.groups[pid] {
		return
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	delete(p.groups, pid)
	p.tell("-" + strconv.Itoa(pid))
}

// RemoveAtDeath has dir removed when this process dies, or closes the reaper.
func (p *Reaper) RemoveAtDeath(dir string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tell("d " + dir)
}

// tell is called with mu held. A supervisor that is gone is no reason to stop
// a test: the children still have their parent-death signal.
func (p *Reaper) tell(line string) {
	if p.pipe != nil {
		_, _ = io.WriteString(p.pipe, line+"\n")
	}
}

// Close kills every group that is left and ends the supervisor, which removes
// the directories of RemoveAtDeath.
func (p *Reaper) Close() error {
	p.mu.Lock()
	if p.pipe == nil {
		p.mu.Unlock()
		return nil
	}
	for pid := range p.groups {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
	p.pipe.Close()
	p.pipe = nil
	p.mu.Unlock()
	close(p.spawn)
	p.wg.Wait()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("supervisor: %w", err)
	}
	return nil
}
