package event

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Record is an event with the time it was emitted.
type Record struct {
	Time  time.Time
	Event Event
}

// Sink consumes events. A bus calls Handle from one goroutine at a time, in
// the order in which events were emitted; Close is called once, after the last.
type Sink interface {
	Handle(Record)
	Close() error
}

// Bus hands every event to every sink, in order. The zero value has no sinks
// and is ready to use. It is safe for concurrent use.
type Bus struct {
	mu     sync.Mutex
	sinks  []Sink
	closed bool
	lastID atomic.Uint64
}

// NewBus returns a bus that feeds the given sinks.
func NewBus(sinks ...Sink) *Bus {
	return &Bus{sinks: sinks}
}

// Emit hands e to every sink before it returns. Events emitted after Close are
// dropped.
func (b *Bus) Emit(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	r := Record{Time: time.Now(), Event: e}
	for _, s := range b.sinks {
		s.Handle(r)
	}
}

// Log emits a message of the given level; machine may be empty.
func (b *Bus) Log(level Level, machine, text string) {
	b.Emit(Log{Level: level, Machine: machine, Text: text})
}

// Say emits a message that no level hides; machine may be empty.
func (b *Bus) Say(machine, text string) {
	b.Emit(Log{Level: Info, Machine: machine, Text: text, Always: true})
}

// Block is an open nested block; end it with Close.
type Block struct {
	bus   *Bus
	open  BlockOpen
	start time.Time
}

// Open begins a nested block. The ID of open is set by the bus.
func (b *Bus) Open(open BlockOpen) *Block {
	open.ID = b.lastID.Add(1)
	b.Emit(open)
	return &Block{bus: b, open: open, start: time.Now()}
}

// ID is the block's number, unique in a run.
func (k *Block) ID() uint64 { return k.open.ID }

// Close ends the block. failure says why its body ended early; empty means it
// succeeded.
func (k *Block) Close(failure string) {
	k.bus.Emit(BlockClose{
		ID:       k.open.ID,
		Machine:  k.open.Machine,
		Text:     k.open.Text,
		Subtest:  k.open.Subtest,
		Duration: time.Since(k.start),
		Failure:  failure,
	})
}

// Nested runs f inside a block and closes it with f's error.
func (b *Bus) Nested(machine, text string, f func() error) error {
	block := b.Open(BlockOpen{Machine: machine, Text: text})
	err := f()
	if err != nil {
		block.Close(err.Error())
		return err
	}
	block.Close("")
	return nil
}

// Close closes every sink and joins their errors.
func (b *Bus) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	var errs []error
	for _, s := range b.sinks {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
