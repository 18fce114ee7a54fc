package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/qmp"
	"vm-prebuild/testrun/shell"
)

// sockets are what QEMU connects to when it starts, by name.
type sockets map[string]*net.UnixListener

// listenAll makes the sockets of a machine in its state directory.
func listenAll(cfg Config) (sockets, error) {
	names := []string{"qmp", "shell", "stderr", "data"}
	if cfg.StreamOutput {
		names = append(names, "output")
	}
	all := sockets{}
	for _, name := range names {
		l, err := listen(filepath.Join(cfg.Dirs.State, name))
		if err != nil {
			all.close()
			return nil, err
		}
		all[name] = l
	}
	return all, nil
}

// listen makes a unix socket for QEMU to connect to.
func listen(path string) (*net.UnixListener, error) {
	// struct sockaddr_un holds 108 bytes, the final NUL included.
	if len(path) > 107 {
		return nil, fmt.Errorf("socket path %s has %d bytes, more than the 107 that the kernel takes\nhint: set XDG_RUNTIME_DIR or TMPDIR to a shorter directory", path, len(path))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
}

// path is that of the socket of a name; "" without one.
func (s sockets) path(name string) string {
	if s[name] == nil {
		return ""
	}
	return s[name].Addr().String()
}

func (s sockets) close() {
	for _, l := range s {
		l.Close()
	}
}

// accept returns QEMU's connection to the socket of a name, nil without one.
// The sockets close when ctx ends.
func (s sockets) accept(ctx context.Context, name string) (net.Conn, error) {
	if s[name] == nil {
		return nil, nil
	}
	c, err := s[name].Accept()
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return c, err
}

// meet accepts QEMU's connections and readies its monitor.
func (p *process) meet(ctx context.Context, s sockets) (err error) {
	stop := context.AfterFunc(ctx, s.close)
	defer stop()
	conns := map[string]net.Conn{}
	defer func() {
		if err != nil {
			for _, c := range conns {
				c.Close()
			}
		}
	}()
	for _, name := range []string{"qmp", "shell", "stderr", "data", "output"} {
		c, err := s.accept(ctx, name)
		if err != nil {
			return err
		}
		if c != nil {
			conns[name] = c
		}
	}
	p.qemuPID.Store(int64(peerPID(conns["qmp"], p.pid())))
	monitor := qmp.New(conns["qmp"])
	if err := monitor.Handshake(ctx); err != nil {
		monitor.Close()
		return fmt.Errorf("QMP handshake: %w", err)
	}
	sh := shell.New(conns["shell"], shell.Options{
		Stderr: conns["stderr"],
		OnStderr: func(line string) {
			lines := p.console.insert(line)
			for i, l := range lines {
				p.cfg.Bus.Emit(event.Serial{Machine: p.cfg.Name, Text: l, Stderr: i == len(lines)-1})
			}
		},
		Output: conns["output"],
		OnOutput: func(line string) {
			p.cfg.Bus.Emit(event.Output{Machine: p.cfg.Name, Text: line})
		},
		Data:     conns["data"],
		Restored: p.run.shell,
	})
	if err := p.adopt(monitor, sh); err != nil { //nolint:contextcheck // the process outlives its start
		return err
	}
	p.cfg.Bus.Emit(event.MachineStarted{Machine: p.cfg.Name, PID: p.pid(), CommandLine: commandLine(int(p.qemuPID.Load()))})
	return nil
}

// adopt makes the connections part of the process, unless it has just ended.
func (p *process) adopt(monitor *qmp.Monitor, sh *shell.Conn) error {
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		monitor.Close()
		sh.Close()
		return p.death()
	}
	p.monitor, p.shell = monitor, sh
	p.mu.Unlock()
	events := monitor.Subscribe(p.ctx)
	go func() {
		defer close(p.heard)
		defer p.events.end()
		for e := range events {
			if !ofOurJob(e) {
				p.events.add(e)
			}
			p.heed(e)
		}
	}()
	return nil
}

// peerPID is the process at the other end of a unix socket, or otherwise if
// that cannot be told: it may be in another PID namespace.
func peerPID(c net.Conn, otherwise int) int {
	pid := otherwise
	if u, ok := c.(*net.UnixConn); ok {
		if raw, err := u.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) {
				if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil && cred.Pid > 0 {
					pid = int(cred.Pid)
				}
			})
		}
	}
	return pid
}

// commandLine is what a process was executed with; nil if that cannot be told.
func commandLine(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}
