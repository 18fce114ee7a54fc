// Package shell speaks the backdoor protocol of NixOS test guests over any
// net.Conn: a root bash that reads commands from one end of a virtio console.
// [New] wraps the connection, [Conn.Connect] waits for the guest's shell and
// [Conn.Run] runs one command.
//
// The guest's side is backdoor.service of nixpkgs'
// nixos/modules/testing/test-instrumentation.nix: it prints a greeting and
// then executes whatever lines it reads. The protocol has no framing of its
// own, so every command here ends with a numbered status line; whatever an
// earlier, given-up command still prints is told apart by that number and
// dropped. A command that never ends therefore costs its caller a time-out,
// never the stream.
package shell

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vm-prebuild/testrun/machine"
)

var _ machine.Shell = (*Conn)(nil)

// Greeting is what the guest prints when its shell is ready.
const Greeting = "Spawning backdoor root shell..."

// Grace is how long beyond a command's own time-out the host waits for the
// guest to report that time-out. A guest that is silent for longer is taken to
// be stuck.
const Grace = 2 * time.Second

// maxLine bounds one line from the guest, that is the base64 of one command's
// output.
const maxLine = 512 << 20

// ErrClosed says that the guest's end of the shell is gone.
var ErrClosed = errors.New("the guest's shell closed the connection")

// TimeoutError says that the guest did not answer in time.
type TimeoutError struct {
	Command string
	After   time.Duration
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("no answer from the guest's shell after %.1f s (command: %s)", e.After.Seconds(), e.Command)
}

// Timeout marks the error as a time-out, as net.Error does.
func (e *TimeoutError) Timeout() bool { return true }

// Conn is the host's end of a guest's shell. Its methods are safe for
// concurrent use; commands run one at a time.
type Conn struct {
	conn  net.Conn
	turn  chan struct{} // holds one token: whose turn it is to run a command
	next  atomic.Uint64
	lines chan string
	done  chan struct{} // closed when the reader ends
	wg    sync.WaitGroup
	err   error // why the reader ended; valid once done is closed
}

// New starts to read from conn. Close ends it.
func New(conn net.Conn) *Conn {
	c := &Conn{
		conn:  conn,
		turn:  make(chan struct{}, 1),
		lines: make(chan string),
		done:  make(chan struct{}),
	}
	c.turn <- struct{}{}
	c.wg.Go(c.read)
	return c
}

// read hands complete lines to whoever waits for them.
func (c *Conn) read() {
	defer close(c.done)
	r := bufio.NewReaderSize(c.conn, 64<<10)
	for {
		line, err := readLine(r)
		if err != nil {
			c.err = ErrClosed
			if errors.Is(err, errLineTooLong) {
				c.err = err
				c.conn.Close()
			}
			return
		}
		c.lines <- line
	}
}

var errLineTooLong = fmt.Errorf("the guest's shell sent a line of more than %d bytes", maxLine)

func readLine(r *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return strings.TrimRight(string(line), "\r\n"), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return "", err
		case len(line) > maxLine:
			return "", errLineTooLong
		}
	}
}

// Close closes the connection and waits for the reader to end.
func (c *Conn) Close() error {
	err := c.conn.Close()
	for {
		select {
		case <-c.lines: // the reader may be in the middle of handing over a line
		case <-c.done:
			c.wg.Wait()
			return err
		}
	}
}

// Connect waits for the guest's greeting. What the guest prints before it
// (firmware may write to the console) is handed to say, line by line.
func (c *Conn) Connect(ctx context.Context, say func(line string)) error {
	if err := c.acquire(ctx); err != nil {
		return err
	}
	defer c.release()
	for {
		line, err := c.line(ctx)
		if err != nil {
			return err
		}
		say(line)
		if strings.Contains(line, Greeting) {
			return nil
		}
	}
}

// Run runs a bash command line in the guest and returns its exit status and
// standard output. Its standard input is empty and its standard error goes to
// the guest's console. A positive timeout ends the command in the guest with
// status 124 (coreutils' timeout); when the guest does not even report that
// within [Grace], the error is a *TimeoutError. Without one, only ctx limits
// the wait.
func (c *Conn) Run(ctx context.Context, command string, timeout time.Duration) (status int, output []byte, err error) {
	if err := c.acquire(ctx); err != nil {
		return 0, nil, err
	}
	defer c.release()
	if timeout > 0 {
		late := &TimeoutError{Command: command, After: timeout + Grace}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout+Grace, late)
		defer cancel()
	}
	mark := fmt.Sprintf("vmt-%d ", c.next.Add(1))
	if err := c.send(ctx, commandLine(command, timeout)+`; echo "`+mark+`${PIPESTATUS[0]}"`+"\n"); err != nil {
		return 0, nil, err
	}
	data := ""
	for {
		line, err := c.line(ctx)
		if err != nil {
			return 0, nil, err
		}
		code, ours := strings.CutPrefix(line, mark)
		if !ours {
			data = line // of this command, or of one that was given up
			continue
		}
		if status, err = strconv.Atoi(code); err != nil {
			return 0, nil, fmt.Errorf("the guest's shell answered %q instead of an exit status", line)
		}
		if output, err = base64.StdEncoding.DecodeString(data); err != nil {
			return 0, nil, fmt.Errorf("the guest's shell answered with malformed base64: %w", err)
		}
		return status, output, nil
	}
}

// Send starts a command line in the guest and does not wait for it. Its output
// is dropped.
func (c *Conn) Send(ctx context.Context, command string, timeout time.Duration) error {
	if err := c.acquire(ctx); err != nil {
		return err
	}
	defer c.release()
	return c.send(ctx, commandLine(command, timeout)+"\n")
}

// commandLine is what the guest's shell executes: one line that prints the
// base64 of the command's output and a line feed.
func commandLine(command string, timeout time.Duration) string {
	prefix := ""
	if timeout > 0 {
		prefix = "timeout " + strconv.FormatFloat(timeout.Seconds(), 'f', -1, 64) + " "
	}
	return prefix + "bash -c " + machine.Quote("set -euo pipefail; "+command) + " </dev/null | (base64 -w 0; echo)"
}

func (c *Conn) acquire(ctx context.Context) error {
	select {
	case <-c.turn:
		return nil
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *Conn) release() { c.turn <- struct{}{} }

// line returns the next line of the guest.
func (c *Conn) line(ctx context.Context) (string, error) {
	select {
	case l := <-c.lines:
		return l, nil
	case <-c.done:
		return "", c.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// send writes s; a guest that does not read cannot hold it up beyond ctx. A
// line of which only a part was taken cannot be taken back, so the connection
// is closed then.
func (c *Conn) send(ctx context.Context, s string) error {
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		// A deadline in the past ends the Write that is under way.
		_ = c.conn.SetWriteDeadline(time.Unix(1, 0))
		close(fired)
	})
	n, err := c.conn.Write([]byte(s))
	if !stop() {
		<-fired
		_ = c.conn.SetWriteDeadline(time.Time{})
	}
	switch {
	case err == nil:
		return nil
	case n > 0:
		c.conn.Close()
		return fmt.Errorf("%w: it took only %d of %d bytes of a command", ErrClosed, n, len(s))
	case ctx.Err() != nil:
		return context.Cause(ctx)
	default:
		return fmt.Errorf("%w (%w)", ErrClosed, err)
	}
}
