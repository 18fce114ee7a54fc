package qmp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/digitalocean/go-qemu/qemu"
	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/qmp"
)

// startQEMU starts a QEMU whose machine does not run, and which serves QMP on
// a socket pair that it inherits.
func startQEMU(t *testing.T, args ...string) (*qmp.Monitor, *exec.Cmd) {
	t.Helper()
	const name = "qemu-system-x86_64"
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "qmp"), os.NewFile(uintptr(fds[1]), "qmp")
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	_ = ours.Close()

	cmd := exec.Command(name, append([]string{
		"-accel", "tcg", "-S", "-nodefaults", "-display", "none",
		"-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control",
	}, args...)...)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	m := qmp.New(conn)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if stderr.Len() > 0 {
			t.Log(stderr.String())
		}
	})
	return m, cmd
}

func TestQEMU(t *testing.T) {
	m, _ := startQEMU(t, "-device", "VGA",
		"-netdev", "user,id=n0,restrict=on", "-device", "virtio-net-pci,netdev=n0,romfile=")
	ctx := deadline(t)
	start := time.Now()
	if err := m.Handshake(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("handshake %v after the start", time.Since(start))
	events := m.Subscribe(ctx)

	schema, err := m.Execute(ctx, "query-qmp-schema", nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(schema) <= 64<<10 {
		t.Errorf("the schema has %d bytes only", len(schema))
	}
	t.Logf("the schema has %d bytes", len(schema))

	if status, err := m.QueryStatus(ctx); err != nil || status != "prelaunch" {
		t.Errorf("status: got %q, %v", status, err)
	}
	if out, err := m.HumanCommand(ctx, "info network"); err != nil || !strings.Contains(out, "n0:") {
		t.Errorf("info network: got %q, %v", out, err)
	}
	if err := m.SetLink(ctx, "n0", false); err != nil {
		t.Error(err)
	}
	var refused *qmp.Error
	if err := m.SetLink(ctx, "nope", false); !errors.As(err, &refused) || refused.Class != "DeviceNotFound" {
		t.Errorf("link of an unknown device: got %v", err)
	}
	for format, magic := range map[string]string{"": "P6", "png": "\x89PNG"} {
		file := filepath.Join(t.TempDir(), "screen")
		if err := m.Screendump(ctx, file, format); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(file); err != nil || !bytes.HasPrefix(data, []byte(magic)) {
			t.Errorf("screen dump in format %q: %d bytes, %v", format, len(data), err)
		}
	}
	if err := m.Quit(ctx); err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	var last string
	for e := range events {
		last = e.Event
	}
	if last != "SHUTDOWN" {
		t.Errorf("the last event was %q", last)
	}
}

func TestGoQEMUDomain(t *testing.T) {
	m, _ := startQEMU(t, "-device", "VGA")
	if err := m.Connect(); err != nil {
		t.Fatal(err)
	}
	d, err := qemu.NewDomain(m, "machine")
	if err != nil {
		t.Fatal(err)
	}
	if status, err := d.Status(); err != nil || status != qemu.StatusPreLaunch {
		t.Errorf("status: got %v, %v", status, err)
	}
	if v, err := d.Version(); err != nil || v == "" {
		t.Errorf("version: got %q, %v", v, err)
	}
	if cmds, err := d.Commands(); err != nil || len(cmds) < 100 {
		t.Errorf("got %d commands, %v", len(cmds), err)
	}
	screen, err := d.ScreenDump()
	if err != nil {
		t.Fatal(err)
	}
	magic := make([]byte, 2)
	if _, err := screen.Read(magic); err != nil || string(magic) != "P6" {
		t.Errorf("screen dump begins with %q, %v", magic, err)
	}
	_ = screen.Close()

	_, done, err := d.Events() // and never read
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := d.SystemReset(); err != nil {
			t.Fatal(err)
		}
	}
	// The command was removed in QEMU 6.0.
	var refused *qmp.Error
	if _, err := d.CPUs(); !errors.As(err, &refused) || refused.Class != "CommandNotFound" {
		t.Errorf("query-cpus: got %v", err)
	}
	close(done)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	<-m.Done()
}

func TestStoppedAndKilledQEMU(t *testing.T) {
	m, cmd := startQEMU(t)
	if err := m.Handshake(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := m.QueryStatus(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stopped: got %v", err)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if _, err := m.QueryStatus(deadline(t)); err != nil {
		t.Errorf("continued: %v", err)
	}

	start := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	if _, err := m.QueryStatus(deadline(t)); !errors.Is(err, qmp.ErrClosed) {
		t.Errorf("killed: got %v", err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("that QEMU died was noticed after %v", d)
	}
}

// socketQEMU starts a QEMU that serves QMP on a socket, too. connect makes
// another client's handshake there.
func socketQEMU(t *testing.T) (cmd *exec.Cmd, connect func(timeout time.Duration) error) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "qmp")
	m, cmd := startQEMU(t, "-qmp", "unix:"+socket+",server=on,wait=off")
	if err := m.Handshake(deadline(t)); err != nil { // from now on the socket is there
		t.Fatal(err)
	}
	return cmd, func(timeout time.Duration) error {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		client := qmp.New(conn)
		t.Cleanup(func() { _ = client.Close() })
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		return client.Handshake(ctx)
	}
}

func TestSecondClientOfQEMU(t *testing.T) {
	_, connect := socketQEMU(t)
	if err := connect(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	if err := connect(200 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second client: got %v", err)
	}
}

func TestClientOfAStoppedQEMU(t *testing.T) {
	cmd, connect := socketQEMU(t)
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for stopped := false; !stopped; { // there is no event for it
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		_, state, _ := strings.Cut(string(stat), ") ")
		stopped = strings.HasPrefix(state, "T")
	}
	begin := time.Now()
	if err := connect(200 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "\nhint: ") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}
