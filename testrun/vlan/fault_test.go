package vlan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// owners names machines a, b, c … in the order in which their clients connect;
// those behind the last one are no machines.
func owners(names ...string) func(int) string {
	var mu sync.Mutex
	return func(pid int) string {
		mu.Lock()
		defer mu.Unlock()
		if pid != os.Getpid() || len(names) == 0 {
			return ""
		}
		name := names[0]
		names = names[1:]
		return name
	}
}

// startMachines starts a hub that the named machines are connected to.
func startMachines(t testing.TB, o Options, names ...string) (*VLAN, []*client) {
	t.Helper()
	o.Owner = owners(names...)
	v, err := Start(1, shortDir(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeSwitch(t, v) })
	clients := make([]*client, len(names))
	for i := range names {
		clients[i] = join(t, v)
	}
	return v, clients
}

// numbered makes a frame that carries a number.
func numbered(n int) []byte {
	frame := newFrame(60, "")
	binary.BigEndian.PutUint32(frame[20:], uint32(n))
	return frame
}

func (c *client) number(t testing.TB) int {
	t.Helper()
	return int(binary.BigEndian.Uint32(c.receive(t)[20:]))
}

// silent fails the test if c receives anything within a moment.
func silent(t *testing.T, c *client) {
	t.Helper()
	if err := c.data.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.data.Read(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("received %d bytes, %v", n, err)
	}
}

func set(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// arrivals sends n frames and returns the numbers of those that arrive.
func arrivals(t *testing.T, v *VLAN, from, to *client, n int) []int {
	t.Helper()
	var got []int
	received := func() uint64 { return v.Stats().Ports[1].FramesOut + v.Stats().Ports[1].Dropped }
	before := received()
	for i := range n {
		from.send(t, numbered(i))
		for received() == before+uint64(i) { // one at a time: no queue is ever full
			time.Sleep(time.Microsecond)
		}
		if v.Stats().Ports[1].FramesOut > uint64(len(got)) {
			got = append(got, to.number(t))
		}
	}
	return got
}

func TestLoss(t *testing.T) {
	const n = 1000
	lost := func(seed uint64, where string) []int {
		v, c := startMachines(t, Options{Seed: seed}, "a", "b")
		set(t, v.SetLoss(where, 0.3))
		return arrivals(t, v, c[0], c[1], n)
	}
	first := lost(1, Everywhere)
	// Seven of ten, give or take five standard deviations.
	if dev := math.Abs(float64(len(first)) - 0.7*n); dev > 5*math.Sqrt(n*0.3*0.7) {
		t.Errorf("%d of %d frames arrived", len(first), n)
	}
	if again := lost(1, Everywhere); !slices.Equal(again, first) {
		t.Error("the same seed has other frames lost")
	}
	if other := lost(2, Everywhere); slices.Equal(other, first) {
		t.Error("another seed has the same frames lost")
	}
	for _, machine := range []string{"a", "b"} { // both ends of the way
		if some := len(lost(1, machine)); some == n || some == 0 {
			t.Errorf("%d frames arrived over the cable of %s", some, machine)
		}
	}
	if all := len(lost(1, "c")); all != n {
		t.Errorf("%d frames arrived, none of which came near c", all)
	}
}

func TestTotalLoss(t *testing.T) {
	v, c := startMachines(t, Options{}, "a", "b", "c")
	set(t, v.SetLoss("b", 1))
	c[0].send(t, numbered(1))
	c[1].send(t, numbered(2))
	if got := c[2].number(t); got != 1 {
		t.Errorf("c received frame %d", got)
	}
	silent(t, c[0])
	silent(t, c[1])
	if dropped := v.Traffic()[1].Dropped; dropped != 1 {
		t.Errorf("%d frames were lost on the way to b", dropped)
	}
	set(t, v.SetLoss("b", 0))
	if v.faults.active.Load() {
		t.Error("frames still take the long way")
	}
	c[0].send(t, numbered(3))
	if got := c[1].number(t); got != 3 {
		t.Errorf("b received frame %d", got)
	}
}

func TestDelayKeepsOrder(t *testing.T) {
	v, c := startMachines(t, Options{Seed: 7}, "a", "b")
	const delay, jitter = 30 * time.Millisecond, 25 * time.Millisecond
	set(t, v.SetDelay("a", delay, jitter))
	begin := time.Now()
	const n = 100
	underWay := make(chan struct{}, 8) // far from what a socket holds
	go func() {
		for i := range n {
			underWay <- struct{}{}
			_, _ = c[0].data.Write(numbered(i))
		}
	}()
	for i := range n {
		if got := c[1].number(t); got != i {
			t.Fatalf("received frame %d, want %d", got, i)
		}
		<-underWay
		if took := time.Since(begin); took < delay-jitter {
			t.Fatalf("frame %d took %v", i, took)
		}
	}
	// Eight frames at a time, each of them at least as long as this.
	if took := time.Since(begin); took < n/8*(delay-jitter) {
		t.Errorf("all frames took %v", took)
	}
}

// What waits for one machine holds up no other.
func TestDelayOfOneCable(t *testing.T) {
	v, c := startMachines(t, Options{}, "a", "b", "c")
	set(t, v.SetDelay("c", time.Hour, 0))
	c[0].send(t, numbered(1))
	if got := c[1].number(t); got != 1 {
		t.Errorf("b received frame %d", got)
	}
	silent(t, c[2])
	// The cable is as good as new; what is in it comes first.
	set(t, v.SetDelay("c", 0, 0))
	c[0].send(t, numbered(2))
	c[1].number(t)
	silent(t, c[2])
	v.Heal()
	for want := 1; want <= 2; want++ {
		if got := c[2].number(t); got != want {
			t.Errorf("c received frame %d, want %d", got, want)
		}
	}
	for v.faults.active.Load() { // until the last one is through
		time.Sleep(time.Millisecond)
	}
}

func TestDelaysAddUp(t *testing.T) {
	v, c := startMachines(t, Options{}, "a", "b")
	for _, where := range []string{"a", Everywhere, "b"} {
		set(t, v.SetDelay(where, 50*time.Millisecond, 0))
	}
	begin := time.Now()
	c[0].send(t, numbered(1))
	c[1].receive(t)
	if took := time.Since(begin); took < 150*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

func TestPartition(t *testing.T) {
	v, c := startMachines(t, Options{}, "a", "b", "c", "d", "") // e is no machine
	reach := func(from, to int) bool {
		t.Helper()
		before := v.Stats().Ports[to]
		c[from].send(t, numbered(from))
		for {
			now := v.Stats().Ports[to]
			if now.FramesOut > before.FramesOut {
				return true
			}
			if now.Dropped > before.Dropped {
				return false
			}
			time.Sleep(time.Microsecond)
		}
	}
	check := func(groups ...string) {
		t.Helper()
		for from := range c {
			for to := range c {
				if from == to {
					continue
				}
				want := len(groups) == 0
				for _, g := range groups {
					want = want || slices.Contains([]byte(g), "abcde"[from]) && slices.Contains([]byte(g), "abcde"[to])
				}
				if got := reach(from, to); got != want {
					t.Errorf("partition %v: %c reaches %c: %v", groups, "abcde"[from], "abcde"[to], got)
				}
				for _, other := range c { // so that no queue is full
					_ = other.data.SetReadDeadline(time.Now())
					for {
						if _, err := other.data.Read(make([]byte, 100)); err != nil {
							break
						}
					}
				}
			}
		}
	}
	check()
	set(t, v.Partition([][]string{{"a", "b"}, {"c"}}))
	check("ab", "c")
	set(t, v.Partition([][]string{{"a", "c", "d"}}))
	check("acd")
	set(t, v.Partition(nil))
	check("")
	v.Heal()
	check()
}

// Frames that become due all at once are more than a socket holds.
func TestBunchOfFrames(t *testing.T) {
	v, c := startMachines(t, Options{}, "a", "b")
	set(t, v.SetDelay(Everywhere, time.Hour, 0))
	const n = 2000
	for i := range n {
		c[0].send(t, numbered(i))
		for !under(v, i+1) {
			time.Sleep(time.Microsecond)
		}
	}
	v.Heal()
	got := 0
	for want := range n {
		// Whoever reads too late on a busy host has lost some, but none is late.
		got = c[1].number(t)
		if got < want {
			t.Fatalf("received frame %d, want %d", got, want)
		}
		if got == n-1 || v.Traffic()[1].Dropped > 0 {
			break
		}
	}
	if dropped := v.Traffic()[1].Dropped; got != n-1 && dropped == 0 {
		t.Errorf("the last frame is %d", got)
	}
}

// A client that never reads costs its own frames, in time, and nobody else's.
func TestDelayedFramesOfAStuckClient(t *testing.T) {
	v, c := startMachines(t, Options{}, "a", "b", "stuck")
	set(t, v.SetDelay(Everywhere, time.Millisecond, 0))
	const n = 1000
	for i := range n {
		c[0].send(t, numbered(i))
		if got := c[1].number(t); got != i {
			t.Fatalf("received frame %d, want %d", got, i)
		}
	}
	for !under(v, 0) {
		time.Sleep(time.Millisecond)
	}
	if s := v.Traffic()[2]; s.Dropped == 0 || s.Dropped+s.ToFrames != n {
		t.Errorf("got %+v", s)
	}
}

// Frames that are under way do not cross a wall that was built meanwhile.
func TestPartitionWhileUnderWay(t *testing.T) {
	v, c := startMachines(t, Options{}, "a", "b")
	set(t, v.SetDelay(Everywhere, 30*time.Millisecond, 0))
	c[0].send(t, numbered(1))
	for !under(v, 1) {
		time.Sleep(time.Microsecond)
	}
	set(t, v.Partition([][]string{{"a"}, {"b"}}))
	for !under(v, 0) {
		time.Sleep(time.Millisecond)
	}
	silent(t, c[1])
}

func under(v *VLAN, n int) bool {
	v.faults.mu.Lock()
	defer v.faults.mu.Unlock()
	frames := 0
	for _, box := range v.faults.underWay {
		frames += len(box.parcels)
	}
	return frames == n
}

func TestBadFaults(t *testing.T) {
	v, _ := startMachines(t, Options{})
	for name, err := range map[string]error{
		"loss -0.1 is not":             v.SetLoss(Everywhere, -0.1),
		"loss 1.1 is not":              v.SetLoss(Everywhere, 1.1),
		"loss NaN is not":              v.SetLoss(Everywhere, math.NaN()),
		"delay -1s or jitter 0s is":    v.SetDelay("a", -time.Second, 0),
		"delay 0s or jitter -1s is":    v.SetDelay("a", 0, -time.Second),
		`machine "a" is in two groups`: v.Partition([][]string{{"a"}, {"b", "a"}}),
	} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %s", err, name)
		}
	}
	if v.faults.active.Load() {
		t.Error("something was set")
	}
	set(t, v.Partition([][]string{{"a", "a"}}))
}

// Faults come and go while many clients send, come and leave.
func TestFaultsUnderLoad(t *testing.T) {
	v, c := startMachines(t, Options{}, "a", "b", "c", "d")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range c {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = c[i].data.Write(numbered(i))
				}
			}
		})
	}
	for i := range 100 {
		set(t, v.SetLoss("a", 0.5))
		set(t, v.SetDelay(Everywhere, time.Millisecond, time.Millisecond))
		if i%10 == 0 {
			set(t, v.Partition([][]string{{"a", "b"}, {"c", "d"}}))
			if i > 0 {
				c[3].close()
			}
		}
		time.Sleep(time.Millisecond)
		v.Heal()
		_ = v.Traffic()
	}
	close(stop)
	wg.Wait()
}

// The counters of a machine go on when it is started anew.
func TestTraffic(t *testing.T) {
	v, c := startMachines(t, Options{}, "b", "a", "b")
	c[0].send(t, newFrame(100, ""))
	c[1].receive(t)
	c[2].receive(t)
	wait := onRemove(t, c[0].answer)
	c[0].close()
	wait()
	c[2].send(t, newFrame(200, ""))
	c[1].receive(t)
	stranger := join(t, v)
	stranger.send(t, newFrame(300, ""))
	c[1].receive(t)
	c[2].receive(t)
	closeSwitch(t, v) // a frame is counted after it was sent
	want := []Traffic{
		{Machine: "", FromFrames: 1, FromBytes: 300},
		{Machine: "a", ToFrames: 3, ToBytes: 600},
		{Machine: "b", FromFrames: 2, FromBytes: 300, ToFrames: 2, ToBytes: 400},
	}
	if got := v.Traffic(); !slices.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func BenchmarkForwardWithFaults(b *testing.B) {
	for name, fault := range map[string]func(*VLAN) error{
		"none":    func(*VLAN) error { return nil },
		"loss":    func(v *VLAN) error { return v.SetLoss("c", 1) },
		"delay":   func(v *VLAN) error { return v.SetDelay(Everywhere, time.Nanosecond, 0) },
		"capture": nil,
	} {
		b.Run(fmt.Sprintf("%s/%d", name, 1514), func(b *testing.B) {
			o := Options{}
			if fault == nil {
				o.Capture = b.TempDir() + "/capture"
			}
			v, c := startMachines(b, o, "a", "b")
			if fault != nil {
				set(b, fault(v))
			}
			frame := newFrame(1514, "")
			b.SetBytes(1514)
			b.ReportAllocs()
			for b.Loop() {
				c[0].send(b, frame)
				c[1].receive(b)
			}
		})
	}
}
