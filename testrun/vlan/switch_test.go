package vlan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"
)

// startVLAN starts the hub under test and closes it when the test ends.
func startVLAN(t testing.TB) *VLAN {
	t.Helper()
	v, err := Start(1, shortDir(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeSwitch(t, v) })
	return v
}

func startVDESwitch(t testing.TB) *Process {
	t.Helper()
	needTool(t, "vde_switch")
	p, err := StartProcess(t.Context(), 1, shortDir(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeSwitch(t, p) })
	return p
}

func closeSwitch(t testing.TB, s Switch) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(s.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there (%v)", s.Dir(), err)
	}
}

// backends are the implementations of Switch.
var backends = map[string]func(testing.TB) Switch{
	"hub":        func(t testing.TB) Switch { return startVLAN(t) },
	"vde_switch": func(t testing.TB) Switch { return startVDESwitch(t) },
}

// TestConformance is what every Switch must do.
func TestConformance(t *testing.T) {
	tests := map[string]func(*testing.T, Switch){
		"directory":       testDirectory,
		"requests":        testRequests,
		"refused":         testRefused,
		"flood":           testFlood,
		"stuck client":    testStuckClient,
		"client leaves":   testClientLeaves,
		"close":           testClose,
		"directory taken": testTaken,
	}
	for backend, start := range backends {
		t.Run(backend, func(t *testing.T) {
			for name, test := range tests {
				t.Run(name, func(t *testing.T) { test(t, start(t)) })
			}
		})
	}
}

func testDirectory(t *testing.T, s Switch) {
	if s.Number() != 1 {
		t.Errorf("got number %d", s.Number())
	}
	info, err := os.Stat(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeDir|0o700 {
		t.Errorf("got mode %v", info.Mode())
	}
}

func testRequests(t *testing.T, s Switch) {
	listener := join(t, s)
	for _, request := range []struct {
		version int
		kind    uint32
	}{{1, newControl}, {3, newControl}, {3, newControl | 7<<8}, {3, newPort0}} {
		c, err := connect(s.Dir(), request.version, request.kind, "test user=root")
		if err != nil {
			t.Fatalf("%+v: %v", request, err)
		}
		defer c.close()
		if port := request.kind >> 8; port != 0 && !strings.Contains(c.answer, fmt.Sprintf("/%03d.", port)) {
			t.Errorf("asked for port %d, got %s", port, c.answer)
		}
		frame := newFrame(60, fmt.Sprint(request))
		c.send(t, frame)
		if got := listener.receive(t); !bytes.Equal(got, frame) {
			t.Errorf("%+v: received %q", request, got)
		}
	}
}

func testRefused(t *testing.T, s Switch) {
	good := encodeRequest(3, newControl, "/no/such/socket", "test")
	for name, request := range map[string][]byte{
		"no such socket": good,
		"magic":          append([]byte("GET /"), good...),
		"version":        encodeRequest(1, 4, "/no/such/socket", "test"),
	} {
		c := join(t, s)
		fresh, err := connectRaw(s.Dir())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = fresh.Close() }()
		if _, err := fresh.Write(request); err != nil {
			t.Fatal(err)
		}
		if err := fresh.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if n, err := fresh.Read(make([]byte, 200)); n > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: got %d bytes, %v", name, n, err)
		}
		other := join(t, s) // the switch works as before
		other.send(t, newFrame(60, name))
		if got := c.receive(t); !bytes.HasSuffix(got, []byte(name)) {
			t.Errorf("%s: received %q", name, got)
		}
		c.close()
		other.close()
	}
}

func testFlood(t *testing.T, s Switch) {
	const n = 4
	var clients [n]*client
	for i := range clients {
		clients[i] = join(t, s)
	}
	tagged := newFrame(100, "an 802.1Q frame")
	copy(tagged[12:], "\x81\x00\x00\x2a\x08\x00")
	unicast := newFrame(1514, "an unknown destination")
	copy(unicast, "\x52\x54\x00\x12\x01\x09")
	frames := [n][]byte{newFrame(60, "a broadcast"), tagged, unicast, newFrame(14, "")}
	for i, frame := range frames {
		clients[i].send(t, frame)
		for k, c := range clients {
			if k == i {
				continue // had it got its own frame, it would find it next
			}
			if got := c.receive(t); !bytes.Equal(got, frame) {
				t.Errorf("client %d received %q from client %d, want %q", k, got, i, frame)
			}
		}
	}
}

func testStuckClient(t *testing.T, s Switch) {
	stuck, sender, receiver := join(t, s), join(t, s), join(t, s)
	frame := newFrame(1514, "")
	for i := range 2000 {
		frame[20], frame[21] = byte(i), byte(i>>8)
		sender.send(t, frame)
		if got := receiver.receive(t); !bytes.Equal(got, frame) {
			t.Fatalf("frame %d was changed or lost", i)
		}
	}
	if got := stuck.receive(t); got[20] != 0 || got[21] != 0 {
		t.Errorf("the first frame in the queue is %d", int(got[21])<<8|int(got[20]))
	}
	if v, ok := s.(*VLAN); ok {
		ports := v.Stats().Ports
		if p := ports[0]; p.Dropped == 0 || p.FramesOut == 0 || p.FramesOut+p.Dropped != 2000 {
			t.Errorf("of the stuck client: %+v", p)
		}
		if p := ports[2]; p.Dropped != 0 {
			t.Errorf("of the receiver: %+v", p)
		}
	}
}

func testClientLeaves(t *testing.T, s Switch) {
	stays, leaves := join(t, s), join(t, s)
	wait := onRemove(t, leaves.answer)
	leaves.close()
	wait()
	next := join(t, s)
	next.send(t, newFrame(60, "hello"))
	if got := stays.receive(t); !bytes.HasSuffix(got, []byte("hello")) {
		t.Errorf("received %q", got)
	}
}

func testClose(t *testing.T, s Switch) {
	c := join(t, s)
	closeSwitch(t, s)
	if err := c.ctl.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.ctl.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the client reads %d bytes, %v", n, err)
	}
	closeSwitch(t, s) // once more is no error
}

func testTaken(t *testing.T, s Switch) {
	v, err := Start(1, s.Dir(), Options{})
	if err == nil {
		t.Fatal(v.Close())
	}
	if !strings.Contains(err.Error(), "is in use by another switch\nhint: ") {
		t.Errorf("got %v", err)
	}
	c := join(t, s) // it still serves
	c.close()
}

// BenchmarkForward measures a frame's way from one client to another, one frame
// at a time.
func BenchmarkForward(b *testing.B) {
	for _, n := range []int{64, 1514} {
		for backend, start := range backends {
			b.Run(fmt.Sprintf("%s/%d", backend, n), func(b *testing.B) {
				s := start(b)
				from, to := join(b, s), join(b, s)
				frame := newFrame(n, "")
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					from.send(b, frame)
					to.receive(b)
				}
			})
		}
	}
}
