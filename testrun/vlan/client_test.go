package vlan

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long tests wait for what ought to happen at once.
const patience = time.Minute

// client is a connected user of a switch. It goes about it as libvdeplug does.
type client struct {
	ctl, data *net.UnixConn
	answer    string // the switch's socket
	buf       []byte // of the last frame received
}

var lastClient atomic.Int32

// encodeRequest makes a request of version 1 or 3.
func encodeRequest(version int, kind uint32, socket, description string) []byte {
	var b bytes.Buffer
	write := func(v any) { _ = binary.Write(&b, binary.NativeEndian, v) }
	write(uint32(requestMagic))
	if version == 3 {
		write(uint32(3))
	}
	write(kind)
	if version == 1 {
		b.Write([]byte{2, 0, 0, 0, 0, 1})
	}
	write(uint16(afUnix))
	path := make([]byte, 108)
	copy(path, socket)
	b.Write(path)
	b.WriteString(description)
	return b.Bytes()
}

// connect opens a port of the switch that serves dir. It is refused with an
// error of io.EOF.
func connect(dir string, version int, kind uint32, description string) (*client, error) {
	ctl, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(dir, "ctl"), Net: "unix"})
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, fmt.Sprintf(".%05d-%05d", os.Getpid(), lastClient.Add(1)))
	data, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		_ = ctl.Close()
		return nil, err
	}
	c := &client{ctl: ctl, data: data}
	if err := c.handshake(encodeRequest(version, kind, socket, description)); err != nil {
		c.close()
		return nil, err
	}
	return c, os.Remove(socket)
}

func (c *client) handshake(request []byte) error {
	if _, err := c.ctl.Write(request); err != nil {
		return err
	}
	answer := make([]byte, sockaddrSize)
	if err := c.ctl.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.ReadFull(c.ctl, answer); err != nil {
		return err
	}
	var err error
	if c.answer, err = parseSockaddr(answer); err != nil {
		return err
	}
	raw, err := c.data.SyscallConn()
	if err != nil {
		return err
	}
	var connectErr error
	err = raw.Control(func(fd uintptr) {
		connectErr = unix.Connect(int(fd), &unix.SockaddrUnix{Name: c.answer})
	})
	if err != nil {
		return err
	}
	return connectErr
}

func (c *client) close() {
	_ = c.ctl.Close()
	_ = c.data.Close()
}

// receive waits for a frame. It is valid until the next.
func (c *client) receive(t testing.TB) []byte {
	t.Helper()
	if err := c.data.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if c.buf == nil {
		c.buf = make([]byte, 1<<17)
	}
	n, err := c.data.Read(c.buf)
	if err != nil {
		t.Fatal(err)
	}
	return c.buf[:n]
}

func (c *client) send(t testing.TB, frame []byte) {
	t.Helper()
	if _, err := c.data.Write(frame); err != nil {
		t.Fatal(err)
	}
}

// join connects a client for the length of the test.
func join(t testing.TB, s Switch) *client {
	t.Helper()
	c, err := connect(s.Dir(), 3, newControl, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

// newFrame makes a broadcast frame of n bytes that ends with text.
func newFrame(n int, text string) []byte {
	frame := make([]byte, n)
	copy(frame, "\xff\xff\xff\xff\xff\xff\x52\x54\x00\x12\x01\x01\x08\x00")
	copy(frame[n-len(text):], text)
	return frame
}

// shortDir returns the path of a directory that is not there yet.
func shortDir(t testing.TB) string {
	t.Helper()
	tmp, err := os.MkdirTemp("", "vlan")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(tmp); err != nil {
			t.Errorf("left behind: %v", err)
		}
	})
	return filepath.Join(tmp, "vde1.ctl")
}

// onRemove returns a function that waits until file, which exists, is removed.
func onRemove(t testing.TB, file string) func() {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	watch := os.NewFile(uintptr(fd), "inotify")
	t.Cleanup(func() { _ = watch.Close() })
	if _, err := unix.InotifyAddWatch(fd, file, unix.IN_DELETE_SELF|unix.IN_ATTRIB); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := watch.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		for {
			if _, err := os.Lstat(file); os.IsNotExist(err) {
				return
			}
			if _, err := watch.Read(buf); err != nil {
				t.Fatalf("%s is still there: %v", file, err)
			}
		}
	}
}

func needTool(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}
