package vlan

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func connectRaw(dir string) (net.Conn, error) {
	return net.Dial("unix", filepath.Join(dir, "ctl"))
}

func TestPathTooLong(t *testing.T) {
	tmp := t.TempDir()
	dir := filepath.Join(tmp, strings.Repeat("x", maxSocket-len(tmp)-len("/")-len("/ctl")))
	_, err := Start(1, dir, Options{})
	if err == nil || !strings.Contains(err.Error(), "the system allows 107\nhint: ") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s was made", dir)
	}
}

func TestTakesOverWhatAKilledDriverLeft(t *testing.T) {
	dir := shortDir(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ctl", "001.5", ".00123-00000"} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		_ = l.Close()
	}
	v, err := Start(1, dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	join(t, v)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("found %v, %v, want ctl and a port", entries, err)
	}
	closeSwitch(t, v)
}

func TestForeignDirectories(t *testing.T) {
	open := t.TempDir()
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "l")
	if err := os.Symlink(open, link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{open, link} {
		if _, err := Start(1, dir, Options{}); err == nil || !strings.Contains(err.Error(), "not a directory with mode 0700 of this user") {
			t.Errorf("got %v", err)
		}
	}
	if _, err := Start(1, filepath.Join(open, "no", "parent"), Options{}); err == nil {
		t.Error("a directory without a parent was made")
	}
}

func TestCloseKeepsForeignFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "v")
	v, err := Start(1, dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "notes")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestCloseLeavesNoDescriptors(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(entries)
	}
	v := startVLAN(t) // the poller's descriptors are open from here on
	closeSwitch(t, v)
	before := count()
	v = startVLAN(t)
	half, err := connectRaw(v.Dir()) // in the middle of its handshake
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = half.Close() }()
	c, d := join(t, v), join(t, v)
	closeSwitch(t, v)
	c.close()
	d.close()
	_ = half.Close()
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestStats(t *testing.T) {
	v := startVLAN(t)
	a, err := connect(v.Dir(), 3, newControl, "QEMU user=root\x1b[2J")
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	b := join(t, v)
	for _, n := range []int{13, 100, 200} {
		a.send(t, make([]byte, n))
	}
	b.receive(t)
	b.receive(t)
	ports := v.Stats().Ports
	if len(ports) != 2 {
		t.Fatalf("got %+v", ports)
	}
	if want := (PortStats{Port: 1, Client: "QEMU user=root?[2J", FramesIn: 2, BytesIn: 300, Invalid: 1}); ports[0] != want {
		t.Errorf("got %+v, want %+v", ports[0], want)
	}
	// A frame is counted after it was sent: the second may be missing.
	if p := ports[1]; p.Port != 2 || p.Client != "test" || p.FramesOut < 1 || p.BytesOut < 100 {
		t.Errorf("got %+v", p)
	}

	wait := onRemove(t, b.answer)
	b.close()
	wait()
	if left := v.Stats().Ports; len(left) != 1 || left[0].Port != 1 {
		t.Errorf("got %+v", left)
	}
}

func TestRefusalsAreCounted(t *testing.T) {
	v := startVLAN(t)
	first, err := connect(v.Dir(), 3, newControl|5<<8, "first")
	if err != nil {
		t.Fatal(err)
	}
	defer first.close()
	if _, err := connect(v.Dir(), 3, newControl|5<<8, "second"); err == nil {
		t.Fatal("two clients have the same port")
	}
	for range maxPorts - 1 {
		join(t, v)
	}
	if _, err := connect(v.Dir(), 3, newControl, "one too many"); err == nil {
		t.Fatal("there is no limit of ports")
	}
	s := v.Stats()
	for i, p := range s.Ports {
		if p.Port != i+1 {
			t.Fatalf("port %d has number %d", i, p.Port)
		}
	}
	if s.Refused < 1 || s.LastRefusal == nil {
		t.Errorf("got %d refusals, %v", s.Refused, s.LastRefusal)
	}
}

func TestJumboFrames(t *testing.T) {
	v := startVLAN(t)
	a, b := join(t, v), join(t, v)
	for _, n := range []int{1519, 9014, maxFrame} {
		frame := newFrame(n, "the end")
		a.send(t, frame)
		if got := b.receive(t); !bytes.Equal(got, frame) {
			t.Errorf("of %d bytes %d arrived", n, len(got))
		}
	}
	a.send(t, newFrame(maxFrame+1, ""))
	a.send(t, newFrame(60, "next"))
	if got := b.receive(t); len(got) != 60 {
		t.Errorf("a frame of %d bytes arrived", len(got))
	}
	if p := v.Stats().Ports[0]; p.Invalid != 1 {
		t.Errorf("got %+v", p)
	}
}

func TestEmptyDatagramIsNoEnd(t *testing.T) {
	v := startVLAN(t)
	a, b := join(t, v), join(t, v)
	a.send(t, nil)
	a.send(t, newFrame(60, "next"))
	if got := b.receive(t); len(got) != 60 {
		t.Errorf("a frame of %d bytes arrived", len(got))
	}
}

// Clients come, send and leave while others do the same.
func TestManyClientsAtOnce(t *testing.T) {
	v := startVLAN(t)
	join(t, v) // and never reads
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				c, err := connect(v.Dir(), 3, newControl, "busy")
				if err != nil {
					t.Error(err)
					return
				}
				for range 5 {
					if _, err := c.data.Write(newFrame(600, "")); err != nil {
						t.Error(err)
					}
				}
				c.close()
			}
		})
	}
	wg.Wait()
	a, b := join(t, v), join(t, v)
	a.send(t, newFrame(61, ""))
	for len(b.receive(t)) != 61 { // frames of those who left may still come
	}
}
