// Package reaper starts child processes that cannot outlive the process that
// started them, not even when it is killed with SIGKILL.
//
// Two means work together. Every child is started with PR_SET_PDEATHSIG, so
// the kernel kills it when we die; and a small supervisor process (this very
// executable, see [Main]) holds the read end of a pipe and, when it breaks,
// kills the process group of every child and whatever else carries our mark in
// its environment. The groups are quick to kill; the mark finds what was forked
// in the moment before we could name its group, or has left it.
// [Start] starts the supervisor, [Reaper.Spawn] starts children.
package reaper

import (
	"bufio"
	"bytes"
	"crypto/rand"
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

const (
	// supervisorEnv tells a process that it is to be the supervisor.
	supervisorEnv = "VM_PREBUILD_SUPERVISOR"
	// markEnv marks the children of one reaper.
	markEnv = "VM_PREBUILD_REAPER"
)

// Main runs the supervisor and exits if this process was started as one, and
// returns at once otherwise. A program that uses this package calls it first
// of all in main (a test, in TestMain).
func Main() {
	if os.Getenv(supervisorEnv) == "" {
		return
	}
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	supervise(os.Stdin, os.Getenv(supervisorEnv))
	os.Exit(0)
}

// supervise obeys lines of "+PGID" (watch), "-PGID" (forget) and "d DIR"
// (remove in the end). At the end of its input it kills and removes what is
// left, processes with the given mark included.
func supervise(commands io.Reader, mark string) {
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
	killMarked(mark)
	for dir := range dirs {
		_ = os.RemoveAll(dir)
	}
}

// killMarked kills every process with the mark in its environment, until there
// is none: one may fork while we look.
func killMarked(mark string) {
	for range 10 {
		marked := findMarked(mark)
		if len(marked) == 0 {
			return
		}
		for _, pid := range marked {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// findMarked lists the processes with the mark in their environment, except
// supervisors: that of a driver that we started has its own work to do now.
func findMarked(mark string) []int {
	proc, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []int
	for _, entry := range proc {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		env, err := os.ReadFile("/proc/" + entry.Name() + "/environ")
		if err != nil {
			continue // ended, or not ours
		}
		// Entries end in NUL; the first has none in front.
		env = append([]byte{0}, env...)
		if bytes.Contains(env, []byte("\x00"+markEnv+"="+mark+"\x00")) && !bytes.Contains(env, []byte("\x00"+supervisorEnv+"=")) {
			found = append(found, pid)
		}
	}
	return found
}

// Reaper owns the supervisor and starts children. Its methods are safe for
// concurrent use.
type Reaper struct {
	mark  string
	spawn chan func()
	wg    sync.WaitGroup
	cmd   *exec.Cmd

	mu     sync.Mutex
	pipe   *os.File
	groups map[int]bool
}

// Start starts the supervisor. It keeps the files held open, and so the locks
// that these have, until it has killed and removed everything.
func Start(held ...*os.File) (*Reaper, error) {
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
	mark := fmt.Sprintf("%d-%s", os.Getpid(), rand.Text())
	cmd.Env = append(os.Environ(), supervisorEnv+"="+mark)
	cmd.Stdin = r
	cmd.ExtraFiles = held
	// Its own session: a Ctrl-C at the terminal must not reach it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, fmt.Errorf("starting the supervisor: %w", err)
	}
	p := &Reaper{mark: mark, spawn: make(chan func()), cmd: cmd, pipe: w, groups: map[int]bool{}}
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
	cmd.Env = append(cmd.Environ(), markEnv+"="+p.mark)
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
	if strings.Contains(dir, "\n") {
		return // it would be read as two
	}
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
func (p *Reaper) Close() {
	p.mu.Lock()
	if p.pipe == nil {
		p.mu.Unlock()
		return
	}
	for pid := range p.groups {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
	p.pipe.Close()
	p.pipe = nil
	p.mu.Unlock()
	close(p.spawn)
	p.wg.Wait()
	// A supervisor that somebody killed has nothing left to do either.
	_ = p.cmd.Wait()
}
