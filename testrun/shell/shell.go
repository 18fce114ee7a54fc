// Package shell speaks the backdoor protocol of NixOS test guests over any
// net.Conn: a root bash that reads commands from one end of a virtio console.
// [New] wraps the connection, [Conn.Connect] waits for the guest's shell and
// [Conn.Run] runs one command.
//
// The guest's side is backdoor.service of nixpkgs'
// nixos/modules/testing/test-instrumentation.nix: it prints a greeting and
// then executes whatever lines it reads. Two things about it are not as simple
// as they look.
//
// The protocol has no framing. So every command here ends with a numbered
// status line, and what an earlier, given-up command still prints is awaited and
// dropped before the next one is sent. A command that never ends therefore costs
// its caller a time-out, never the stream.
//
// QEMU drops what a guest writes to a virtio console while the host's end of it
// is full, that is when we do not get to run for a moment. So the guest writes
// output in chunks, and waits for a line feed of ours after each full one.
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
	"time"

	"vm-prebuild/testrun/machine"
)

// Greeting is what the guest prints when its shell is ready.
const Greeting = "Spawning backdoor root shell..."

// Grace is how long beyond a command's own time-out the host waits for the
// guest to report that time-out. A guest that is silent for longer is taken to
// be stuck.
const Grace = 2 * time.Second

// chunk is how many bytes of base64 the guest sends before it waits for us. The
// buffer of QEMU's socket takes at least twice as much, in writes of 2 KiB.
const chunk = 32 << 10

// maxLine bounds one line from the guest.
const maxLine = 1 << 20

// maxOutput bounds the base64 of one command's output.
const maxOutput = 512 << 20

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
	sent  uint64        // number of the last command of Run; guarded by turn
	seen  uint64        // number of the last status line; guarded by turn
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
			c.seen = c.sent // a new shell owes nothing
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
	if c.seen < c.sent {
		// The guest still has a command that was given up, and would take the
		// next line for our answer to a chunk of its output.
		if _, _, err := c.answer(ctx, c.sent); err != nil {
			return 0, nil, err
		}
	}
	number := c.sent + 1
	if err := c.send(ctx, script(command, timeout, number)); err != nil {
		return 0, nil, err
	}
	c.sent = number
	status, encoded, err := c.answer(ctx, number)
	if err != nil {
		return 0, nil, err
	}
	if output, err = base64.StdEncoding.DecodeString(encoded); err != nil {
		return 0, nil, fmt.Errorf("the guest's shell answered with malformed base64: %w", err)
	}
	return status, output, nil
}

// answer reads until the status line of a command and returns its exit status
// and the base64 of its output.
func (c *Conn) answer(ctx context.Context, number uint64) (int, string, error) {
	var encoded strings.Builder
	for {
		line, err := c.line(ctx)
		if err != nil {
			return 0, "", err
		}
		if rest, ok := strings.CutPrefix(line, statusMark); ok {
			var n uint64
			var status int
			if _, err := fmt.Sscanf(rest, "%d %d", &n, &status); err != nil || n > number {
				return 0, "", fmt.Errorf("the guest's shell answered %q instead of the exit status of command %d", line, number)
			}
			c.seen = n
			if n == number {
				return status, encoded.String(), nil
			}
			encoded.Reset() // that was the output of an earlier command
			continue
		}
		encoded.WriteString(line)
		if encoded.Len() > maxOutput {
			c.conn.Close()
			return 0, "", fmt.Errorf("a command's output has more than %d bytes of base64\nhint: write it to a file and copy that", maxOutput)
		}
		if len(line) == chunk {
			if err := c.send(ctx, "\n"); err != nil {
				return 0, "", err
			}
		}
	}
}

// Send starts a command line in the guest and does not wait for it. Its output
// is dropped.
func (c *Conn) Send(ctx context.Context, command string, timeout time.Duration) error {
	if err := c.acquire(ctx); err != nil {
		return err
	}
	defer c.release()
	return c.send(ctx, invocation(command, timeout)+" >/dev/null\n")
}

// statusMark begins a status line; base64 has no hyphen.
const statusMark = "vmt-"

// script is what the guest's shell executes for Run: one line that prints the
// output of a command as base64, in chunks, and a status line.
func script(command string, timeout time.Duration, number uint64) string {
	return fmt.Sprintf(`o=$(%s | base64 -w %[2]d; exit ${PIPESTATUS[0]}); s=$?; `+
		`for l in $o; do echo $l; ((${#l} < %[2]d)) || read -r; done; `+
		`unset o l; echo %[3]s%[4]d $s`+"\n",
		invocation(command, timeout), chunk, statusMark, number)
}

// invocation is the command line that runs a command without input.
func invocation(command string, timeout time.Duration) string {
	prefix := ""
	if timeout > 0 {
		prefix = "timeout " + strconv.FormatFloat(timeout.Seconds(), 'f', -1, 64) + " "
	}
	return prefix + "bash -c " + machine.Quote("set -euo pipefail; "+command) + " </dev/null"
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
