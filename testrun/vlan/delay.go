package vlan

import (
	"container/heap"
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

// mailbox has the frames that are under way to one port.
type mailbox struct {
	parcels parcels
	bytes   int
	retry   time.Time // not before: the client's queue is full
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

// post has a frame delivered after delay, and behind those of the same way. It is
// called with mu held.
func (f *faults) post(from, to *port, way *direction, frame []byte, delay time.Duration) {
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

// hurry has all frames delivered at once. It is called with mu held.
func (f *faults) hurry() {
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
