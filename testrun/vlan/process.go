package vlan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	processStartTimeout = 5 * time.Second
	processStopTimeout  = 2 * time.Second
)

// Process is a vde_switch in hub mode; its switch mode drops 802.1Q frames.
type Process struct {
	number int
	dir    string
	cmd    *exec.Cmd
	stdin  io.Closer
	exited chan struct{}
	close  func() error
}

var _ Switch = (*Process)(nil)

// StartProcess runs `vde_switch --hub`, found in PATH, on the directory dir, to
// which the rules of [Start] apply. It waits up to five seconds for the switch
// to be ready. start starts the command in place of its Start method; nil means
// that method. The caller need not wait for the command.
func StartProcess(ctx context.Context, number int, dir string, start func(*exec.Cmd) error) (*Process, error) {
	if start == nil {
		start = (*exec.Cmd).Start
	}
	p, err := startProcess(ctx, number, dir, start)
	if err != nil {
		return nil, fmt.Errorf("start VLAN %d: %w", number, err)
	}
	return p, nil
}

func startProcess(ctx context.Context, number int, dir string, start func(*exec.Cmd) error) (*Process, error) {
	const name = "vde_switch"
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("%w\nhint: install vde2, or use the built-in switch", err)
	}
	if dir, err = makeDir(dir); err != nil {
		return nil, err
	}
	out := &output{ready: make(chan struct{})}
	cmd := exec.Command(path, "--sock", dir, "--dirmode", "0700", "--hub")
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, errors.Join(err, removeDir(dir))
	}
	if err := start(cmd); err != nil {
		_ = stdin.Close()
		return nil, errors.Join(fmt.Errorf("run %s: %w", path, err), removeDir(dir))
	}
	p := &Process{number: number, dir: dir, cmd: cmd, stdin: stdin, exited: make(chan struct{})}
	p.close = sync.OnceValue(p.stop)
	go func() {
		_ = cmd.Wait() // cmd.ProcessState has what there is to know
		close(p.exited)
	}()
	if err := p.awaitReady(ctx, stdin, out); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w%s", name, err, out.quote()), p.stop())
	}
	return p, nil
}

// awaitReady returns when the switch executes commands: it serves its socket by
// then.
func (p *Process) awaitReady(ctx context.Context, stdin io.Writer, out *output) error {
	ctx, cancel := context.WithTimeout(ctx, processStartTimeout)
	defer cancel()
	_, _ = io.WriteString(stdin, "showinfo\n") // an error here means that it has exited
	select {
	case <-out.ready:
	case <-p.exited:
		return fmt.Errorf("exited before it was ready: %s", p.cmd.ProcessState)
	case <-ctx.Done():
		return fmt.Errorf("not ready: %w", context.Cause(ctx))
	}
	if _, err := os.Stat(filepath.Join(p.dir, "ctl")); err != nil {
		return fmt.Errorf("ready without a socket: %w", err)
	}
	return nil
}

// Number implements [Switch].
func (p *Process) Number() int { return p.number }

// Dir implements [Switch].
func (p *Process) Dir() string { return p.dir }

// Close implements [Switch]. It returns when the process has ended.
func (p *Process) Close() error {
	if err := p.close(); err != nil {
		return fmt.Errorf("close VLAN %d: %w", p.number, err)
	}
	return nil
}

func (p *Process) stop() error {
	_ = p.stdin.Close() // for vde_switch the end of its input is the end
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(processStopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	return removeDir(p.dir)
}

// output is what a process has printed until it was ready, or the first part of
// it; the rest is thrown away.
type output struct {
	ready chan struct{} // closed when it was found to be ready

	mu   sync.Mutex
	text bytes.Buffer
	done bool
}

func (o *output) Write(b []byte) (int, error) {
	const most = 16 << 10
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.done || o.text.Len() > most {
		return len(b), nil
	}
	o.text.Write(b)
	if bytes.Contains(o.text.Bytes(), []byte("1000 Success")) {
		o.done = true
		close(o.ready)
	}
	return len(b), nil
}

// quote returns the output as the end of an error message.
func (o *output) quote() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := bytes.TrimSpace(o.text.Bytes())
	if len(text) == 0 {
		return ""
	}
	return fmt.Sprintf("; it printed %q", text)
}
