package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// feed is the input of a command on its way.
type feed struct {
	done chan struct{} // closed when the guest has taken it
	err  error         // of the reader; valid once done is closed
}

// feed starts to send a call's input, by the data port if the guest has it. The
// guest takes all that it was promised, so zeros stand for what cannot be read,
// or is not to be read because ctx has ended.
func (c *Conn) feed(ctx context.Context, k call) *feed {
	to := c.conn
	if c.ready.port {
		to = c.data
	}
	f := &feed{done: make(chan struct{})}
	c.fed = f.done
	c.wg.Go(func() {
		defer close(f.done)
		n, err := io.CopyN(to, contextReader{ctx, k.input}, k.inputBytes)
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("the input of a command has %d bytes instead of %d", n, k.inputBytes)
		}
		f.err = err
		_, _ = io.CopyN(to, zeros{}, k.inputBytes-n) // fails only when the connection is closed
	})
	return f
}

// contextReader reads until ctx ends.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
