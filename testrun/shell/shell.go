// Package shell speaks the backdoor protocol of NixOS test guests: a root bash
// that reads commands from one end of a virtio console. [New] wraps the
// connections, [Conn.Connect] waits for the guest's shell, [Conn.Run] runs one
// command, [Conn.Repeat] runs one until it succeeds, [Conn.Receive] and
// [Conn.Feed] run one that gives or takes any number of bytes.
//
// The guest's side is backdoor.service of nixpkgs'
// nixos/modules/testing/test-instrumentation.nix: it prints a greeting and
// then executes whatever lines it reads. The protocol has no framing of its own,
// so after the greeting we teach the guest's bash one (guest.sh, which describes
// the wire). Every command has a number, and what an earlier, given-up command
// still sends is awaited and dropped before the next one is sent: a command that
// never ends costs its caller a time-out, never the stream.
package shell

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
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
const Grace = 3 * time.Second

// What the guest's shell uses besides its own console, where the machine has
// it; the device names are those of second and third virtio consoles.
const (
	StderrDevice = "/dev/hvc1"
	OutputDevice = "/dev/hvc2"
	DataPort     = "vm-prebuild.data" // name of a virtio serial port
)

// maxOutput bounds what Run and Repeat return, in bytes.
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

// Options are what a guest's shell may have besides its console. Each is the
// host's end of a connection, or nil.
type Options struct {
	// Stderr is where the guest's StderrDevice leads. OnStderr gets what
	// commands write to standard error, line by line.
	Stderr   net.Conn
	OnStderr func(line string)

	// Output is where the guest's OutputDevice leads. OnOutput gets standard
	// output, line by line, while a command runs. That costs a process for each
	// command, so it is for debugging.
	Output   net.Conn
	OnOutput func(line string)

	// Data is where the guest's port named DataPort leads. It carries what is
	// long, several times faster than the console.
	Data net.Conn
}

// Conn is the host's end of a guest's shell. Its methods are safe for
// concurrent use; commands run one at a time.
type Conn struct {
	conn   net.Conn
	data   net.Conn
	key    string // begins marks in the guest's streams; cannot be guessed
	device struct{ stderr, output, data string }

	turn    chan struct{} // holds one token: whose turn it is to run a command
	sent    uint64        // number of the last command; guarded by turn
	seen    uint64        // number of the last end frame; guarded by turn
	greeted bool          // the next shell has greeted already; guarded by turn
	fed     chan struct{} // closed when the input of the last command is sent; guarded by turn
	ready   frame         // what the guest has found; guarded by turn
	begun   bool          // a long output has begun: lines are base64; guarded by turn

	frames chan frame
	chunks chan []byte // from the data port
	stderr *lineReader // nil without
	output *lineReader // nil without

	closing chan struct{} // closed by Close: nobody takes frames any more
	once    sync.Once
	done    chan struct{} // closed when the reader of frames ends
	wg      sync.WaitGroup
	err     error // why that reader ended; valid once done is closed
}

// New starts to read from conn. Close ends it.
func New(conn net.Conn, o Options) *Conn {
	c := &Conn{
		conn:    conn,
		data:    o.Data,
		key:     "vmt-" + rand.Text() + "-",
		turn:    make(chan struct{}, 1),
		frames:  make(chan frame),
		chunks:  make(chan []byte),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
	}
	c.turn <- struct{}{}
	c.wg.Go(c.readFrames)
	if o.Data != nil {
		c.device.data = DataPort
		c.wg.Go(c.readData)
	}
	if o.Stderr != nil {
		c.device.stderr = StderrDevice
		c.stderr = newLineReader(o.Stderr, o.OnStderr, c.key)
		c.wg.Go(c.stderr.read)
	}
	if o.Output != nil {
		c.device.output = OutputDevice
		c.output = newLineReader(o.Output, o.OnOutput, c.key)
		c.wg.Go(c.output.read)
	}
	return c
}

// Close closes the connections and waits for the readers to end.
func (c *Conn) Close() error {
	c.once.Do(func() { close(c.closing) })
	err := c.conn.Close()
	if c.data != nil {
		c.data.Close()
	}
	for _, r := range []*lineReader{c.stderr, c.output} {
		if r != nil {
			r.conn.Close()
		}
	}
	c.wg.Wait()
	return err
}

//go:embed guest.sh
var guestSource string

var commentOrIndent = regexp.MustCompile(`(?m)^\s*(#.*)?\n?|\s+# .*$`)

// program is guest.sh without what only people read: bash takes a script from a
// console one byte at a time.
var program = sync.OnceValue(func() string { return commentOrIndent.ReplaceAllString(guestSource, "") })

// Connect waits for the guest's greeting. What the guest prints before it
// (firmware may write to the console) is handed to say, line by line.
func (c *Conn) Connect(ctx context.Context, say func(line string)) error {
	if err := c.acquire(ctx); err != nil {
		return err
	}
	defer c.release()
	for !c.greeted {
		f, err := c.frame(ctx)
		if err != nil {
			return err
		}
		if f.kind == frameLine {
			say(f.text)
			c.greeted = strings.Contains(f.text, Greeting)
		}
	}
	return c.teach(ctx)
}

// teach sends guest.sh to a shell that has greeted.
func (c *Conn) teach(ctx context.Context) error {
	c.greeted = false
	c.seen, c.begun = c.sent, false // a new shell owes nothing
	err := c.send(ctx, fmt.Sprintf("_vmt_key=%s _vmt_err=%s _vmt_tee=%s _vmt_name=%s\n%s",
		c.key, c.device.stderr, c.device.output, c.device.data, program()))
	if err != nil {
		return err
	}
	// What an earlier shell has left in the data port comes before the mark.
	var port tail
	mark := c.mark(0)
	for c.ready = (frame{}); c.ready.kind == 0 || c.ready.port && !port.is(mark); {
		select {
		case p := <-c.chunks:
			port.add(p, len(mark))
		case f := <-c.frames:
			if f.kind == frameReady {
				c.ready = f
			}
		case <-c.done:
			return c.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// errRebooted says that a new shell has greeted while an earlier one was to
// answer.
var errRebooted = errors.New("the guest has rebooted, or started another root shell, while a command ran")

// Rebooted reports whether an error means that the guest has a new shell, which
// Connect then finds.
func Rebooted(err error) bool { return errors.Is(err, errRebooted) }

// Run runs a bash command line in the guest and returns how it ended. Its
// standard input is empty. A positive timeout ends the command in the guest
// with status 124, as coreutils' timeout does; when the guest does not even
// report that within [Grace], the error is a *TimeoutError. Without one, only
// ctx limits the wait. Standard error is surely complete when the status is not 0.
func (c *Conn) Run(ctx context.Context, command string, timeout time.Duration) (machine.Result, error) {
	r, _, err := c.collect(ctx, call{command: command, limit: timeout})
	return r, err
}

// Repeat runs a command in the guest until it succeeds (or fails, when fail is
// set), with short pauses between, but not for longer than about duration: then
// done is false. A positive limit ends each attempt with status 124.
func (c *Conn) Repeat(ctx context.Context, command string, fail bool, limit, duration time.Duration) (r machine.Result, done bool, err error) {
	until := untilSuccess
	if fail {
		until = untilFailure
	}
	return c.collect(ctx, call{command: command, limit: limit, until: until, duration: duration})
}

// Receive runs a command and writes its standard output, of any length, to w.
// It is not in the result.
func (c *Conn) Receive(ctx context.Context, command string, w io.Writer) (machine.Result, error) {
	r, _, err := c.exchange(ctx, call{command: command}, w)
	return r, err
}

// Feed runs a command whose standard input is the next n bytes of r.
func (c *Conn) Feed(ctx context.Context, command string, r io.Reader, n int64) (machine.Result, error) {
	result, _, err := c.collect(ctx, call{command: command, input: r, inputBytes: n})
	return result, err
}

// Send starts a command line in the guest and does not wait for it. Its output
// is dropped.
func (c *Conn) Send(ctx context.Context, command string, timeout time.Duration) error {
	if err := c.acquire(ctx); err != nil {
		return err
	}
	defer c.release()
	prefix := ""
	if timeout > 0 {
		prefix = "timeout " + strconv.FormatFloat(timeout.Seconds(), 'f', -1, 64) + " "
	}
	return c.send(ctx, prefix+"bash -c "+machine.Quote("set -euo pipefail; "+command)+" </dev/null >/dev/null\n")
}

// call is one command and how to run it.
type call struct {
	command    string
	limit      time.Duration // of an attempt; 0 for none
	until      string        // "" runs it once
	duration   time.Duration // how long to repeat it
	input      io.Reader     // nil for none
	inputBytes int64
}

const (
	untilSuccess = "0"
	untilFailure = "1"
)

// own matches what a command must be a process of its own for: elsewhere bash
// runs it as a subshell, whose $$ is the guest's shell itself.
var own = regexp.MustCompile(`\$\$|\$\{?[$0]|PPID|BASH|SHLVL|\$\{?_\b`)

// ownGroup matches commands that send signals to their own process group, which
// is that of the guest's shell unless coreutils' timeout makes another.
var ownGroup = regexp.MustCompile(`\bkill\b[^;|&\n]*\s0\b`)

// maxArgument is a little less than what the kernel takes as one argument of a
// program (MAX_ARG_STRLEN).
const maxArgument = 120 << 10

// shellCode is what the guest's shell evaluates for a command.
func shellCode(command string) string {
	program := ""
	switch {
	case len(command) > maxArgument:
	case ownGroup.MatchString(command):
		program = "exec timeout 0 bash -c "
	case own.MatchString(command):
		program = "exec bash -c "
	}
	if program == "" {
		return command
	}
	return program + machine.Quote("set -euo pipefail; "+command)
}

// maxInline is how long a command may be that goes through the console, from
// which bash takes one byte at a time.
const maxInline = 4 << 10

// command has the guest run a call.
func (c *Conn) command(ctx context.Context, k call, number uint64) error {
	command := shellCode(k.command)
	if len(command) <= maxInline || !c.ready.port || k.input != nil {
		return c.send(ctx, k.line(number, machine.Quote(command)))
	}
	err := c.send(ctx, fmt.Sprintf("_vmt_l=$(head -c %d <$_vmt_port)\n%s", len(command), k.line(number, `"$_vmt_l"`)))
	if err != nil {
		return err
	}
	if _, err := writeAll(ctx, c.data, []byte(command)); err != nil {
		c.conn.Close() // the guest takes anything for the rest of the command
		return fmt.Errorf("%w: sending a command of %d bytes: %w", ErrClosed, len(command), err)
	}
	return nil
}

// line is what the guest's shell executes for a call; command is one word.
func (k call) line(number uint64, command string) string {
	word := func(set bool, s string) string {
		if !set {
			return "-"
		}
		return s
	}
	return fmt.Sprintf("_vmt %d %s %s %d %s %s\n", number,
		word(k.limit > 0, strconv.FormatFloat(k.limit.Seconds(), 'f', 3, 64)),
		word(k.until != "", k.until),
		k.duration.Milliseconds()/10,
		word(k.input != nil, strconv.FormatInt(k.inputBytes, 10)),
		command)
}

// collect is exchange with the output in the result.
func (c *Conn) collect(ctx context.Context, k call) (machine.Result, bool, error) {
	var out limitedBuffer
	r, done, err := c.exchange(ctx, k, &out)
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

// exchange sends a command and writes its output to w. done is false when the
// command is to be repeated once more.
func (c *Conn) exchange(ctx context.Context, k call, w io.Writer) (r machine.Result, done bool, err error) {
	if err := c.acquire(ctx); err != nil {
		return r, false, err
	}
	defer c.release()
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
		select {
		case p := <-c.chunks:
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
