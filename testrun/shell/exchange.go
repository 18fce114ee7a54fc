package shell

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"strconv"
	"strings"

	"vm-prebuild/testrun/machine"
)

// collect is exchange, or takeTurn, with the output in the result.
func (c *Conn) collect(ctx context.Context, k call, exchange func(context.Context, call, io.Writer) (machine.Result, bool, error)) (machine.Result, bool, error) {
	var out limitedBuffer
	r, done, err := exchange(ctx, k, &out)
	r.Stdout = out.Bytes()
	return r, done, err
}

// limitedBuffer refuses to hold more than maxOutput.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxOutput {
		return 0, fmt.Errorf("a command's output has more than %d bytes\nhint: write it to a file and copy that", maxOutput)
	}
	return b.Buffer.Write(p)
}

// takeTurn is exchange for who has not got the turn yet.
func (c *Conn) takeTurn(ctx context.Context, k call, w io.Writer) (r machine.Result, done bool, err error) {
	if err := c.acquire(ctx); err != nil {
		return r, false, err
	}
	defer c.release()
	c.running.Store(k.command)
	return c.exchange(ctx, k, w)
}

// exchange sends a command and writes its output to w. done is false when the
// command is to be repeated once more.
func (c *Conn) exchange(ctx context.Context, k call, w io.Writer) (r machine.Result, done bool, err error) {
	if limit := k.limit + k.duration; k.limit > 0 {
		late := &TimeoutError{Command: k.command, After: limit + Grace}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit+Grace, late)
		defer cancel()
	}
	if err := c.settle(ctx); err != nil {
		return r, false, err
	}
	if c.seen < c.sent {
		// The guest still has a command that was given up, and would take the
		// next line for our answer to a chunk of its output.
		if _, err := c.answer(ctx, c.sent, io.Discard); err != nil {
			return r, false, err
		}
	}
	number := c.sent + 1
	if c.stderr != nil {
		c.stderr.forget()
	}
	if err := c.command(ctx, k, number); err != nil {
		return r, false, err
	}
	c.sent = number
	var input *feed
	if k.input != nil {
		input = c.feed(ctx, k)
	}
	end, err := c.answer(ctx, number, w)
	if err != nil {
		return r, false, err
	}
	if input != nil {
		<-input.done // the guest has taken all of it
		if input.err != nil {
			return r, false, input.err
		}
	}
	r.Status = end.status
	if c.stderr != nil {
		r.Stderr = c.stderr.until(ctx, number, end.status != 0 && c.ready.stderr)
	}
	return r, end.how != howAgain, nil
}

// settle looks at what the guest has sent since the last command, which is
// nothing unless it has rebooted, and waits until that command has its input.
func (c *Conn) settle(ctx context.Context) error {
	for waiting := c.seen >= c.sent; waiting; {
		select {
		case f := <-c.frames:
			c.greeted = c.greeted || f.kind == frameLine && strings.Contains(f.text, Greeting)
		default:
			waiting = false
		}
	}
	if c.greeted {
		if err := c.teach(ctx); err != nil {
			return err
		}
	}
	if c.fed != nil {
		select {
		case <-c.fed:
		case <-c.done:
			return c.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// answer reads until the end of a command and writes its output to w.
func (c *Conn) answer(ctx context.Context, number uint64, w io.Writer) (frame, error) {
	var refused error // of w; the stream goes on all the same
	put := func(p []byte) {
		if refused == nil && len(p) > 0 {
			_, refused = w.Write(p)
		}
	}
	var port tail   // what came by the data port
	var ended frame // the end, while the mark on the data port is awaited
	for {
		// What comes by the port follows a first part that comes by the console, and
		// may arrive before that.
		chunks := c.chunks
		if !c.begun && ended.kind != frameEnd {
			chunks = nil
		}
		select {
		case p := <-chunks:
			put(port.add(p, len(c.mark(number))))
		case f := <-c.frames:
			switch {
			case f.kind == frameLine && strings.Contains(f.text, Greeting):
				c.greeted = true
				c.seen = c.sent
				return f, errRebooted
			case f.kind == frameReady:
			case f.kind == frameLine && !c.begun:
				// Not ours: something else writes to the guest's console.
			case f.kind == frameLine:
				raw, err := base64.StdEncoding.DecodeString(f.text)
				if err != nil {
					return f, fmt.Errorf("the guest's shell answered with malformed base64: %w", err)
				}
				put(raw)
				if len(f.text) == chunk {
					if err := c.send(ctx, "\n"); err != nil {
						return f, err
					}
				}
			case f.number > number:
				return f, fmt.Errorf("the guest's shell answered command %d before it was asked", f.number)
			case f.kind == frameOut:
				c.begun = true
				if f.number == number {
					put(f.raw)
				}
			case f.kind == frameEnd:
				c.seen, c.begun = f.number, false
				if f.number < number {
					port.held = nil // the output of an earlier command
					continue
				}
				if f.how != howPort {
					put(f.raw)
					return f, refused
				}
				ended = f
			}
		case <-c.done:
			return frame{}, c.err
		case <-ctx.Done():
			return frame{}, context.Cause(ctx)
		}
		if ended.kind == frameEnd && port.is(c.mark(number)) {
			return ended, refused
		}
	}
}

func (c *Conn) mark(number uint64) string { return c.key + strconv.FormatUint(number, 10) }

// tail holds back the end of a stream, which may be a mark.
type tail struct{ held []byte }

// add returns what is surely not part of a mark of n bytes at the end.
func (t *tail) add(p []byte, n int) []byte {
	t.held = append(t.held, p...)
	cut := max(len(t.held)-n, 0)
	out := t.held[:cut:cut]
	t.held = append([]byte(nil), t.held[cut:]...)
	return out
}

func (t *tail) is(mark string) bool { return string(t.held) == mark }
