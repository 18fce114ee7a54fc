package python

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed shim/bootstrap.py
var bootstrap string

// command returns the interpreter's command line. Site packages stay on and
// the user's PYTHON* variables count, as scripts may need either.
func (h Host) command() *exec.Cmd {
	python := h.Python
	if python == "" {
		python = "python3"
	}
	cmd := exec.Command(python, "-c", bootstrap)
	cmd.Stdout, cmd.Stderr = h.Stdout, h.Stderr
	if cmd.Stdout == nil {
		cmd.Stdout = os.Stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // for daemons that keep a copied output open
	return cmd
}

// process is a running interpreter and our end of its socket.
type process struct {
	cmd    *exec.Cmd
	conn   *os.File
	exited chan struct{} // closed when it has exited and its group is killed

	mu     sync.Mutex
	reaped bool // its number, and that of its group, may be another's
}

// start starts cmd with the other end of the socket as descriptor 3. onExit is
// called when it has exited.
func (h Host) start(cmd *exec.Cmd, onExit func()) (*process, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd.ExtraFiles = []*os.File{theirs}

	start := h.Start
	if start == nil {
		start = (*exec.Cmd).Start
	}
	if err := start(cmd); err != nil {
		ours.Close()
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("start interpreter of the test script: %w\nhint: test scripts need Python 3.11 or newer on $PATH", err)
		}
		return nil, fmt.Errorf("start interpreter of the test script: %w", err)
	}
	p := &process{cmd: cmd, conn: ours, exited: make(chan struct{})}
	go p.watch(onExit)
	return p, nil
}

// watch waits for the interpreter to exit and kills what is left of its group.
// It leaves the zombie to wait, so that until then the group's number is ours.
func (p *process) watch(onExit func()) {
	defer close(p.exited)
	for {
		err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.kill()
	// A process that has left the group may still hold the other end. What the
	// interpreter wrote before is in our buffer, and soon read.
	_ = p.conn.SetDeadline(time.Now().Add(time.Second))
	onExit()
}

// kill kills the interpreter and its group, unless it has been waited for.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL) // ESRCH: nobody is left
	}
}

// wait waits until the interpreter has exited and returns how it did.
func (p *process) wait() *os.ProcessState {
	<-p.exited
	p.mu.Lock()
	p.reaped = true
	p.mu.Unlock()
	_ = p.cmd.Wait() // how it exited is in its state
	p.conn.Close()
	return p.cmd.ProcessState
}

// socketPair returns two connected stream sockets. Reads of the first can have
// deadlines; the second is blocking, as a child expects.
func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket for the test script: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make socket for the test script: %w", err), unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return os.NewFile(uintptr(fds[0]), "script"), os.NewFile(uintptr(fds[1]), "driver"), nil
}
