package vlan

import (
	"container/heap"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxUnderWay bounds the frames that are on their way to one port, in bytes. It
	// is a second of a gigabit Ethernet and more than any guest sends here.
	maxUnderWay = 128 << 20
	// overdue is how long a delayed frame waits for a client whose queue is full.
	// Timers are coarse, so delayed frames come in bunches, and a socket holds some
	// hundred small ones or three of 64 KiB.
	overdue   = 50 * time.Millisecond
	retryFull = 500 * time.Microsecond
)

// Everywhere is the whole VLAN, in place of a machine.
const Everywhere = ""

// cable is what is wrong with a stretch of the network.
type cable struct {
	loss          float64 // of 1
	delay, jitter time.Duration
}

// faults has the faults of a hub, and the frames that these delay. A frame goes
// from its sender's cable through the hub to its receiver's cable, and any of the
// three may lose or delay it. Frames of one direction (from one machine to
// another) stay in order.
type faults struct {
	// active is unset while no fault is set and no frame is under way: frames
	// then pass without a look at the rest.
	active atomic.Bool
	wake   chan struct{} // has room for one: the first frame to deliver is another

	mu         sync.Mutex
	seed       uint64
	hub        cable
	cables     map[string]cable // of machines
	groups     map[string]int   // by machine; nil without a partition
	directions map[string]*direction
	serial     uint64             // of the last frame delayed
	underWay   map[*port]*mailbox // only such as have frames
}

// mailbox has the frames that are under way to one port.
type mailbox struct {
	parcels parcels
	bytes   int
	retry   time.Time // not before: the client's queue is full
}

// direction is the way from one machine to another.
type direction struct {
	// random decides for the frames of this direction alone, so that their fate
	// depends on how many there were before and not on the rest of the traffic.
	random   *rand.Rand
	underWay int       // frames
	last     time.Time // when the last of them is due
}

// parcel is a frame under way.
type parcel struct {
	due    time.Time
	serial uint64
	from   *port
	way    *direction
	frame  []byte
}

// parcels is a heap; the first is the next to deliver.
type parcels []parcel

func (p parcels) Len() int      { return len(p) }
func (p parcels) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p parcels) Less(i, j int) bool {
	if p[i].due.Equal(p[j].due) {
		return p[i].serial < p[j].serial
	}
	return p[i].due.Before(p[j].due)
}
func (p *parcels) Push(x any) { *p = append(*p, x.(parcel)) }
func (p *parcels) Pop() any {
	last := len(*p) - 1
	x := (*p)[last]
	(*p)[last] = parcel{}
	*p = (*p)[:last]
	return x
}

func newFaults(seed uint64) *faults {
	return &faults{
		wake:       make(chan struct{}, 1),
		seed:       seed,
		cables:     map[string]cable{},
		directions: map[string]*direction{},
		underWay:   map[*port]*mailbox{},
	}
}

// SetLoss has each frame lost with a probability from 0 to 1: on the cable of a
// machine, in both directions, or [Everywhere], which is in the hub. Where all
// three stretches between two machines lose frames, a frame has to survive each.
func (v *VLAN) SetLoss(machine string, loss float64) error {
	if !(loss >= 0 && loss <= 1) {
		return fmt.Errorf("loss %v is not between 0 and 1", loss)
	}
	v.faults.change(func(f *faults) { f.edit(machine, func(c *cable) { c.loss = loss }) })
	return nil
}

// SetDelay has each frame take longer by delay, give or take up to jitter, on the
// cable of a machine, in both directions, or [Everywhere]. Delays add up. Jitter
// never changes the order of the frames from one machine to another.
func (v *VLAN) SetDelay(machine string, delay, jitter time.Duration) error {
	if delay < 0 || jitter < 0 {
		return fmt.Errorf("delay %v or jitter %v is negative", delay, jitter)
	}
	v.faults.change(func(f *faults) {
		f.edit(machine, func(c *cable) { c.delay, c.jitter = delay, jitter })
	})
	return nil
}

// Partition divides the network into groups of machines. A machine reaches its
// own group only; one that is in no group is cut off, as are clients that are no
// machines. It replaces an earlier partition.
func (v *VLAN) Partition(groups [][]string) error {
	members := map[string]int{}
	for i, group := range groups {
		for _, machine := range group {
			if in, known := members[machine]; known && in != i {
				return fmt.Errorf("machine %q is in two groups", machine)
			}
			members[machine] = i
		}
	}
	v.faults.change(func(f *faults) { f.groups = members })
	return nil
}

// Heal undoes all faults. Frames that are under way arrive at once.
func (v *VLAN) Heal() {
	v.faults.change(func(f *faults) {
		f.hub, f.groups = cable{}, nil
		clear(f.cables)
		now := time.Now()
		for _, box := range f.underWay {
			for i := range box.parcels {
				box.parcels[i].due = now
			}
			heap.Init(&box.parcels)
		}
		for _, way := range f.directions {
			way.last = now
		}
	})
}

func (f *faults) change(set func(*faults)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	set(f)
	f.settle()
	f.rouse()
}

// edit changes what is wrong with the cable of a machine, or with the hub.
func (f *faults) edit(machine string, set func(*cable)) {
	if machine == Everywhere {
		set(&f.hub)
		return
	}
	c := f.cables[machine]
	set(&c)
	f.cables[machine] = c
	maps.DeleteFunc(f.cables, func(_ string, c cable) bool { return c == cable{} })
}

// settle is called with mu held, after every change.
func (f *faults) settle() {
	f.active.Store(f.hub != cable{} || len(f.cables) > 0 || f.groups != nil || len(f.underWay) > 0)
}

func (f *faults) rouse() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// separated is called with mu held.
func (f *faults) separated(from, to *port) bool {
	if f.groups == nil {
		return false
	}
	a, known := f.groups[from.machine]
	b, knownToo := f.groups[to.machine]
	return !known || !knownToo || a != b
}

// pass sends a frame on its way.
func (f *faults) pass(from, to *port, frame []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.separated(from, to) {
		to.dropped.Add(1)
		return
	}
	way := f.direction(from, to)
	stretches := [...]cable{f.cables[from.machine], f.hub, f.cables[to.machine]}
	lost := false
	var delay time.Duration
	for _, c := range stretches {
		// However it went before, each stretch draws: what happens on one is
		// then the same whatever happens on the others.
		if c.loss > 0 && way.random.Float64() < c.loss {
			lost = true
		}
		stray := time.Duration(0)
		if c.jitter > 0 {
			stray = time.Duration((2*way.random.Float64() - 1) * float64(c.jitter))
		}
		delay += max(0, c.delay+stray)
	}
	if lost {
		to.dropped.Add(1)
		return
	}
	if delay == 0 && way.underWay == 0 {
		to.send(frame)
		return
	}
	box := f.underWay[to]
	if box == nil {
		box = &mailbox{}
	}
	if box.bytes+len(frame) > maxUnderWay {
		to.dropped.Add(1)
		return
	}
	due := time.Now().Add(delay)
	if way.underWay > 0 && due.Before(way.last) {
		due = way.last
	}
	f.serial++
	way.underWay++
	way.last = due
	box.bytes += len(frame)
	heap.Push(&box.parcels, parcel{due, f.serial, from, way, append([]byte(nil), frame...)})
	f.underWay[to] = box
	f.settle()
	if box.parcels[0].serial == f.serial {
		f.rouse()
	}
}

// direction is called with mu held.
func (f *faults) direction(from, to *port) *direction {
	name := from.name() + " → " + to.name()
	way := f.directions[name]
	if way == nil {
		sum := fnv.New64a()
		_, _ = sum.Write([]byte(name))
		way = &direction{random: rand.New(rand.NewPCG(f.seed, sum.Sum64()))}
		f.directions[name] = way
	}
	return way
}

// deliver sends the frames that are due and returns how long it is until the
// next is; false when there is none.
func (f *faults) deliver() (time.Duration, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.settle()
	var next time.Time
	for to, box := range f.underWay {
		at, more := f.empty(to, box)
		if !more {
			delete(f.underWay, to)
		} else if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return time.Until(next), !next.IsZero()
}

// empty sends what is due to one port and returns when there is more to do;
// false when nothing is left. It is called with mu held.
func (f *faults) empty(to *port, box *mailbox) (time.Time, bool) {
	now := time.Now()
	if now.Before(box.retry) {
		return box.retry, true
	}
	for len(box.parcels) > 0 {
		p := box.parcels[0]
		if p.due.After(now) {
			return p.due, true
		}
		if f.separated(p.from, to) {
			to.dropped.Add(1)
		} else if !to.trySend(p.frame) {
			if now.Sub(p.due) < overdue {
				box.retry = now.Add(retryFull)
				return box.retry, true
			}
			to.dropped.Add(1)
		}
		heap.Pop(&box.parcels)
		box.bytes -= len(p.frame)
		p.way.underWay--
	}
	return time.Time{}, false
}

// run delivers delayed frames until done is closed.
func (f *faults) run(done <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-f.wake:
		case <-done:
			return
		}
		if wait, more := f.deliver(); more {
			timer.Reset(wait)
		}
	}
}
