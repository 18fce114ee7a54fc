package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/machine"
)

// BusyError says that a guest's shell runs a command for somebody else.
type BusyError struct{ Command string }

func (e *BusyError) Error() string {
	return fmt.Sprintf("a command runs in the guest: %s\nhint: wait for it first; when a thread of the script has called it, join the thread", e.Command)
}

// Held is a guest's shell that runs commands for nobody else until its Release.
// Its methods must not be called concurrently.
type Held struct{ c *Conn }

// Hold takes the shell for its caller alone. It waits no longer than limit for a
// command that runs: the error is a *[BusyError] then.
func (c *Conn) Hold(ctx context.Context, limit time.Duration) (*Held, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errHold)
	defer cancel()
	err := c.acquire(ctx)
	if errors.Is(err, errHold) {
		command, _ := c.running.Load().(string)
		return nil, &BusyError{Command: command}
	}
	if err != nil {
		return nil, err
	}
	return &Held{c}, nil
}

var errHold = errors.New("the shell is busy")

// Release lets others use the shell.
func (h *Held) Release() { h.c.release() }

// Run is that of Conn.
func (h *Held) Run(ctx context.Context, command string, timeout time.Duration) (machine.Result, error) {
	r, _, err := h.c.collect(ctx, call{command: command, limit: timeout}, h.c.exchange)
	return r, err
}

// Repeat is that of Conn.
func (h *Held) Repeat(ctx context.Context, command string, fail bool, limit, duration time.Duration) (machine.Result, bool, error) {
	return h.c.collect(ctx, repeated(command, fail, limit, duration), h.c.exchange)
}

// Receive is that of Conn.
func (h *Held) Receive(ctx context.Context, command string, w io.Writer) (machine.Result, error) {
	r, _, err := h.c.exchange(ctx, call{command: command}, w)
	return r, err
}

// Feed is that of Conn.
func (h *Held) Feed(ctx context.Context, command string, r io.Reader, n int64) (machine.Result, error) {
	result, _, err := h.c.collect(ctx, call{command: command, input: r, inputBytes: n}, h.c.exchange)
	return result, err
}

// Send is that of Conn.
func (h *Held) Send(ctx context.Context, command string, timeout time.Duration) error {
	return h.c.start(ctx, command, timeout)
}

// Sleep is that of Conn.
func (h *Held) Sleep(ctx context.Context, program string) (string, error) {
	return h.c.sleep(ctx, program)
}

// Ask is that of Conn.
func (h *Held) Ask(ctx context.Context, line string) (string, error) { return h.c.ask(ctx, line) }

// Saved is that of Conn.
func (h *Held) Saved() Saved { return h.c.saved() }

// Forget drops all that a guest has sent which is about to be put back to the moment
// of Saved, when its shell was asleep. The guest must be stopped, so that nothing more
// arrives: half a frame would swallow the beginning of the next.
func (h *Held) Forget(ctx context.Context, saved Saved) error {
	c := h.c
	if c.fed != nil {
		select {
		case <-c.fed:
		default:
			return errors.New("the guest has not taken all of its last command's input")
		}
	}
	c.forgotten = make(chan struct{}, 4)
	readers := []net.Conn{c.conn}
	if c.data != nil {
		readers = append(readers, c.data)
	}
	for _, l := range []*lineReader{c.stderr, c.output} {
		if l != nil {
			readers = append(readers, l.conn)
		}
	}
	c.forgetting.Store(true)
	defer c.forgetting.Store(false)
	for _, conn := range readers {
		_ = conn.SetReadDeadline(time.Unix(1, 0)) // ends the Read that is under way
	}
	for forgotten := 0; forgotten < len(readers); {
		select {
		case <-c.forgotten:
			forgotten++
		case <-c.frames: // what has been read is dropped, too
		case <-c.chunks:
		case <-c.done:
			return c.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	// Commands have higher numbers than those of then all the same.
	c.seen, c.greeted, c.begun, c.ready = c.sent, false, false, saved.ready()
	return nil
}

// forgets says whether a reader's error comes of Forget, and then drops what has
// arrived by conn: the reader begins anew.
func (c *Conn) forgets(conn net.Conn, err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || !c.forgetting.Load() {
		return false
	}
	_ = conn.SetReadDeadline(time.Time{})
	if s, ok := conn.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			buf := make([]byte, 64<<10)
			_ = raw.Read(func(fd uintptr) bool {
				for {
					n, err := unix.Read(int(fd), buf)
					if n <= 0 && !errors.Is(err, unix.EINTR) {
						return true // the end of a stream is read once more
					}
				}
			})
		}
	}
	c.forgotten <- struct{}{} // there is room for one from each reader
	return true
}
