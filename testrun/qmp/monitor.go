// Package qmp talks to QEMU over the QEMU Machine Protocol without ever
// hanging: every call ends with its context or with the connection, replies
// have no size limit, and events that nobody reads hold nothing up.
//
// [New] makes a [Monitor] of a connection, and [Monitor.Handshake] readies it.
// A Monitor also implements go-qemu's qmp.Monitor, so that go-qemu's
// qemu.Domain works on top of it.
//
// The format is JSON objects, one a line, as described in QEMU's
// docs/interop/qmp-spec.
package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// ErrClosed is wrapped by every error that is due to the end of the
// connection, whoever ended it.
var ErrClosed = errors.New("qmp: connection closed")

// Error is QEMU's answer to a command that it did not carry out.
type Error struct {
	Command string
	Class   string // "GenericError", "CommandNotFound", "DeviceNotFound", ...
	Desc    string // QEMU's words, for people
}

func (e *Error) Error() string {
	return fmt.Sprintf("qmp command %s: %s (%s)", e.Command, e.Desc, e.Class)
}

// Monitor is the client's end of one QMP connection. It is safe for concurrent
// use; commands of several goroutines are in flight at the same time. Close
// must be called to release it.
type Monitor struct {
	conn     net.Conn
	requests chan request  // unbuffered: the writer has taken what was sent
	greeted  chan struct{} // closed by the reader when QEMU has greeted
	done     chan struct{} // closed by the reader when the connection has ended
	wg       sync.WaitGroup

	mu      sync.Mutex
	lastID  uint64
	pending map[uint64]pending
	subs    map[chan Event]func() bool // see Subscribe
	first   chan Event
	err     error
}

type request struct {
	id   uint64
	line []byte
}

// pending is a command whose reply has not come yet.
type pending struct {
	command string
	reply   chan reply // has room for the one reply that it gets
}

type reply struct {
	value json.RawMessage
	err   error
}

// New starts reading from conn, which the monitor owns from now on. conn is
// usually one end of a socket pair whose other end QEMU has inherited, or a
// connection to its QMP socket.
func New(conn net.Conn) *Monitor {
	first := make(chan Event, eventQueue)
	m := &Monitor{
		conn:     conn,
		requests: make(chan request),
		greeted:  make(chan struct{}),
		done:     make(chan struct{}),
		pending:  map[uint64]pending{},
		subs:     map[chan Event]func() bool{first: nil},
		first:    first,
	}
	m.wg.Go(m.read)
	m.wg.Go(m.write)
	return m
}

// Handshake waits for QEMU's greeting and leaves capabilities negotiation
// mode. Nothing but Subscribe is of use before it.
func (m *Monitor) Handshake(ctx context.Context) error {
	select {
	case <-m.greeted:
	case <-m.done:
		return fmt.Errorf("qmp handshake: %w", m.Err())
	case <-ctx.Done():
		return fmt.Errorf("qmp handshake: no greeting from QEMU: %w"+
			"\nhint: QEMU greets one client at a time; is another one connected, or is QEMU stopped?", context.Cause(ctx))
	}
	_, err := m.Execute(ctx, "qmp_capabilities", nil)
	return err
}

// Execute runs a command and returns what QEMU returned for it. args is
// encoded as JSON; nil stands for no arguments. The error is an [*Error] when
// QEMU refused, wraps [ErrClosed] when the connection has ended, and wraps
// ctx's cause when ctx ended first. In the last case QEMU may still carry out
// the command; its late reply is dropped and the monitor stays usable.
func (m *Monitor) Execute(ctx context.Context, command string, args any) (json.RawMessage, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("qmp command %s: %w", command, context.Cause(ctx))
	}
	id, result := m.expect(command)
	defer m.forget(id)
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, args, id})
	if err != nil {
		return nil, fmt.Errorf("qmp command %s: encode arguments: %w", command, err)
	}

	// The writer, not this goroutine, blocks when QEMU does not read. So a
	// command is written whole or not at all, whatever becomes of ctx.
	select {
	case m.requests <- request{id, append(line, '\n')}:
	case <-m.done:
		return nil, fmt.Errorf("qmp command %s: %w", command, m.Err())
	case <-ctx.Done():
		return nil, fmt.Errorf("qmp command %s: not sent: %w", command, context.Cause(ctx))
	}
	select {
	case r := <-result:
		return r.value, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("qmp command %s: no reply: %w", command, context.Cause(ctx))
	case <-m.done:
	}
	select {
	case r := <-result: // it came before the end did
		return r.value, r.err
	default:
		return nil, fmt.Errorf("qmp command %s: %w", command, m.Err())
	}
}

// Done is closed when the connection has ended.
func (m *Monitor) Done() <-chan struct{} { return m.done }

// Err says why the connection has ended; it wraps [ErrClosed]. It is nil until
// Done is closed.
func (m *Monitor) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// Close ends the connection, with everything that waits for it, and returns
// when the monitor's goroutines have ended. QEMU itself is not told to quit.
func (m *Monitor) Close() error {
	err := m.conn.Close()
	m.wg.Wait()
	if errors.Is(err, net.ErrClosed) { // the reader closes at the peer's end of file
		return nil
	}
	return err
}

// expect registers a command and gives it an id.
func (m *Monitor) expect(command string) (uint64, <-chan reply) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lastID++
	p := pending{command, make(chan reply, 1)}
	m.pending[m.lastID] = p
	return m.lastID, p.reply
}

func (m *Monitor) forget(id uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pending, id)
}

// take returns the pending command with the given id, at most once.
func (m *Monitor) take(id uint64) (pending, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.pending[id]
	delete(m.pending, id)
	return p, ok
}

// write is the goroutine that sends commands. A failed write only fails its
// command: that the connection has ended is for the reader to find, after it
// has read what QEMU said last.
func (m *Monitor) write() {
	for {
		select {
		case r := <-m.requests:
			if _, err := m.conn.Write(r.line); err != nil {
				if p, ok := m.take(r.id); ok {
					p.reply <- reply{err: fmt.Errorf("qmp command %s: %w", p.command, closedBy(err))}
				}
			}
		case <-m.done:
			return
		}
	}
}

// read is the goroutine that receives. Nothing in it blocks but the reading.
func (m *Monitor) read() {
	r := bufio.NewReader(m.conn)
	var err error
	for err == nil {
		var line []byte
		if line, err = r.ReadBytes('\n'); err == nil {
			err = m.handle(line)
		}
	}
	_ = m.conn.Close() // a blocked writer ends, too

	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = closedBy(err)
	for ch, stop := range m.subs {
		if stop != nil {
			stop()
		}
		close(ch)
	}
	m.subs = nil
	close(m.done)
}

// handle processes one line. An error means that the peer does not speak QMP,
// after which no reply can be trusted to belong to its command.
func (m *Monitor) handle(line []byte) error {
	msg, err := decode(line)
	if err != nil {
		return err
	}
	switch {
	case msg.greeting:
		select {
		case <-m.greeted:
			return errors.New("second greeting")
		default:
			close(m.greeted)
		}
	case msg.event != nil:
		m.publish(*msg.event)
	default:
		p, ok := m.take(msg.id)
		if !ok { // its caller has given up
			return nil
		}
		if msg.err != nil {
			msg.err.Command = p.command
			p.reply <- reply{err: msg.err}
		} else {
			p.reply <- reply{value: msg.value}
		}
	}
	return nil
}

// closedBy makes the error that says what ended the connection.
func closedBy(err error) error {
	switch {
	case errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrClosedPipe):
		return ErrClosed
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w by QEMU", ErrClosed)
	default:
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
}
