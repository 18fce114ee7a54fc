package qmp

import (
	"context"

	goqmp "github.com/digitalocean/go-qemu/qmp"
)

// Event is something that QEMU reports unasked, "SHUTDOWN" for example. Its
// Data is shared by all subscribers and must not be changed.
type Event = goqmp.Event

// eventQueue is how many events wait for a subscriber. It is far more than
// QEMU sends in the life of a test (it limits the rate of frequent events), and
// 10 KiB.
const eventQueue = 256

// Subscribe returns a channel of the events from now on. The first subscription
// also gets the events that arrived before it, so that none is lost around the
// handshake. The channel is closed when ctx or the connection has ended; events
// that were queued by then can still be read.
//
// A subscriber that does not read never holds up replies or other subscribers:
// when 256 events wait for it the oldest is dropped, because the last ones
// (SHUTDOWN, GUEST_PANICKED) are those that tell how a machine ended.
func (m *Monitor) Subscribe(ctx context.Context) <-chan Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	ch := m.first
	m.first = nil
	if ch == nil {
		ch = make(chan Event, eventQueue)
		if m.subs == nil { // the connection has ended
			close(ch)
		}
	}
	if m.subs != nil {
		m.subs[ch] = context.AfterFunc(ctx, func() { m.unsubscribe(ch) })
	}
	return ch
}

func (m *Monitor) unsubscribe(ch chan Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.subs[ch]; ok {
		delete(m.subs, ch)
		close(ch)
	}
}

// publish queues an event for every subscriber. Only the reader calls it: with
// one sender there is room for the event once another has been taken out.
func (m *Monitor) publish(e Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for ch := range m.subs {
		for queued := false; !queued; {
			select {
			case ch <- e:
				queued = true
			default:
				select {
				case <-ch:
				default:
				}
			}
		}
	}
}
