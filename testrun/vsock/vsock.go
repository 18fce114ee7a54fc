// Package vsock connects SSH clients of the host with guests: it runs
// vhost-device-vsock, which gives each machine a virtio socket device and the
// host a Unix socket to it. Nothing of it needs privileges or /dev/vhost-vsock.
// [Start] starts the process, [Device.QEMUArguments] attaches a machine, and
// [Device.Host] is what systemd-ssh-proxy(1) connects to.
//
// The names of the sockets are those of nixpkgs' test driver from 26.05 on.
package vsock

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	program = "vhost-device-vsock"

	// firstCID is the context identifier of the first machine: those below are
	// the hypervisor's and the host's.
	firstCID = 3

	startTimeout = 10 * time.Second
	stopTimeout  = 2 * time.Second

	// maxSocketPath is the size of sun_path in unix(7), less its final NUL.
	maxSocketPath = 107
)

// Options say what [Start] starts.
type Options struct {
	Dir      string   // existing directory for the sockets, of this process alone
	Machines []string // names; the order decides the context identifiers
	// Spawn starts the process in place of its Start method.
	Spawn func(*exec.Cmd) error
	// Warn is called with each line that the process prints, and when it ends
	// before it is closed. It must not block.
	Warn func(text string)
}

// Device is a running vhost-device-vsock.
type Device struct {
	dir     string
	cmd     *exec.Cmd
	exited  chan struct{}
	closing atomic.Bool
	close   func() error

	mu   sync.Mutex
	last string // line that it printed
}

// Start runs vhost-device-vsock, found in PATH, and waits up to ten seconds
// until every machine can be attached. The caller closes the Device; it need
// not wait for the process.
func Start(ctx context.Context, o Options) (*Device, error) {
	d, err := start(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("SSH backdoor: %w", err)
	}
	return d, nil
}

func start(ctx context.Context, o Options) (*Device, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("%w\nhint: install %s, or set sshBackdoor.enable = false in the test", err, program)
	}
	d := &Device{dir: o.Dir, exited: make(chan struct{})}
	cmd := exec.Command(path)
	for i, name := range o.Machines {
		guest, host := d.guest(name), d.Host(name)
		if len(guest) > maxSocketPath {
			return nil, fmt.Errorf("socket %s: the path is longer than %d bytes\nhint: set XDG_RUNTIME_DIR to a directory with a short name", guest, maxSocketPath)
		}
		cmd.Args = append(cmd.Args, "--vm", fmt.Sprintf("guest-cid=%d,socket=%s,uds-path=%s", firstCID+i, guest, host))
	}
	reader, writer := io.Pipe()
	cmd.Stdout, cmd.Stderr = writer, writer
	cmd.WaitDelay = time.Second // for a child that keeps the output open
	if err := o.Spawn(cmd); err != nil {
		return nil, fmt.Errorf("run %s: %w", path, err)
	}
	d.cmd = cmd
	d.close = sync.OnceValue(d.stop)
	read := make(chan struct{})
	go func() {
		defer close(read)
		d.read(reader, o.Warn)
	}()
	go func() {
		_ = cmd.Wait()     // cmd.ProcessState has what there is to know
		_ = writer.Close() // never fails
		<-read
		close(d.exited)
	}()
	if err := d.await(ctx, o.Machines); err != nil {
		return nil, errors.Join(err, d.close())
	}
	go d.watch(o.Warn)
	return d, nil
}

// read passes on what the process prints. It reads on after a line that is too
// long, as the process would wait.
func (d *Device) read(r io.Reader, warn func(string)) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		d.mu.Lock()
		d.last = lines.Text()
		d.mu.Unlock()
		warn(program + ": " + lines.Text())
	}
	_, _ = io.Copy(io.Discard, r)
}

// await returns when QEMU can connect for each machine. There is no other sign
// of readiness than the sockets.
func (d *Device) await(ctx context.Context, machines []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("it was not ready within %v", startTimeout))
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for _, name := range machines {
		for {
			if _, err := os.Stat(d.guest(name)); err == nil {
				break
			}
			select {
			case <-tick.C:
			case <-d.exited:
				return fmt.Errorf("%s ended before it was ready: %s", program, d.end())
			case <-ctx.Done():
				return fmt.Errorf("%s: %w", program, context.Cause(ctx))
			}
		}
	}
	return nil
}

// end says how the process ended.
func (d *Device) end() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last == "" {
		return d.cmd.ProcessState.String()
	}
	return fmt.Sprintf("%s; it printed %q", d.cmd.ProcessState, d.last)
}

// watch says when the process ends by itself: the test goes on without it.
func (d *Device) watch(warn func(string)) {
	<-d.exited
	if !d.closing.Load() {
		warn(program + " has ended, and the SSH backdoor with it: " + d.end())
	}
}

func (d *Device) guest(name string) string { return filepath.Join(d.dir, name+"_guest.socket") }

// Host is the socket on which the host reaches the machine.
func (d *Device) Host(name string) string { return filepath.Join(d.dir, name+"_host.socket") }

// QEMUArguments attach the machine to its socket. The guest's memory must be
// shared with other processes, as nixpkgs' enableSharedMemory has it.
func (d *Device) QEMUArguments(name string) []string {
	return []string{
		// A comma would end the value of path; two stand for one.
		"-chardev", "socket,id=vsock_ssh,path=" + strings.ReplaceAll(d.guest(name), ",", ",,"),
		"-device", "vhost-user-vsock-pci,chardev=vsock_ssh",
	}
}

// Close ends the process and returns when it has ended.
func (d *Device) Close() error { return d.close() }

func (d *Device) stop() error {
	d.closing.Store(true)
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.exited:
	case <-time.After(stopTimeout):
		_ = d.cmd.Process.Kill()
		<-d.exited
	}
	return nil
}
