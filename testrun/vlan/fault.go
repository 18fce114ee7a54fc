package vlan

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
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

// direction is the way from one machine to another.
type direction struct {
	// random decides for the frames of this direction alone, so that their fate
	// depends on how many there were before and not on the rest of the traffic.
	random   *rand.Rand
	underWay int       // frames
	last     time.Time // when the last of them is due
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
		f.hurry()
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
	f.post(from, to, way, frame, delay)
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
