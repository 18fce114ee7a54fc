package vsock

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// A real QEMU takes our arguments, and begins to speak vhost-user on the socket.
func TestQEMUArguments(t *testing.T) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "vsock,") // a comma, which options would end at
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &Device{dir: dir}
	listener, err := net.Listen("unix", d.guest("m"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	const limit = 60 * time.Second
	cmd := exec.CommandContext(t.Context(), qemu, append(d.QEMUArguments("m"),
		"-machine", "q35,accel=tcg,memory-backend=mem", "-object", "memory-backend-memfd,id=mem,size=64M,share=on", "-m", "64M",
		"-S", "-display", "none", "-nodefaults")...)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	if err := listener.(*net.UnixListener).SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	// A message is its request, flags and size, 32 bits each; the first asks for
	// the features of the device.
	header := make([]byte, 12)
	if _, err := io.ReadFull(conn, header); err != nil {
		t.Fatal(err)
	}
	const getFeatures = 1
	if request := binary.NativeEndian.Uint32(header); request != getFeatures {
		t.Errorf("request %d, want %d", request, getFeatures)
	}
}
