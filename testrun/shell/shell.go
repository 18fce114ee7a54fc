// Package shell speaks the backdoor protocol of NixOS test guests: a root bash
// that reads commands from one end of a virtio console. [New] wraps the
// connections, [Conn.Connect] waits for the guest's shell, [Conn.Run] runs one command, [Conn.Repeat] runs one
// until it succeeds, [Conn.Receive] and [Conn.Feed] run one that gives or takes
// any number of bytes.
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
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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

	// Restored is what Saved returned of a guest that has been saved, and is now
	// restored: its shell neither greets nor has to be taught. The host's end must
	// have had the same connections then, and the same [Version]. Nil for a guest
	// that boots.
	Restored *Saved
}

// Saved is what is known of a guest's shell that has been taught.
type Saved struct {
	Key    string `json:"key"`    // begins marks in the guest's streams
	Sent   uint64 `json:"sent"`   // number of the last command
	Stderr bool   `json:"stderr"` // it has a console for standard error
	Port   bool   `json:"port"`   // it has the data port
}

func (s Saved) ready() frame { return frame{kind: frameReady, stderr: s.Stderr, port: s.Port} }

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

	running atomic.Value // string: the last command that had its turn

	frames     chan frame
	chunks     chan []byte   // from the data port
	forgetting atomic.Bool   // readers are to drop what they read
	forgotten  chan struct{} // gets one from each reader that has
	stderr     *lineReader   // nil without
	output     *lineReader   // nil without

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
	if o.Restored != nil {
		c.key = o.Restored.Key
		c.sent, c.seen = o.Restored.Sent, o.Restored.Sent
		c.ready = o.Restored.ready()
	}
	c.wg.Go(c.readFrames)
	if o.Data != nil {
		c.device.data = DataPort
		c.wg.Go(c.readData)
	}
	if o.Stderr != nil {
		c.device.stderr = StderrDevice
		c.stderr = newLineReader(o.Stderr, o.OnStderr, c.key, c.forgets)
		c.wg.Go(c.stderr.read)
	}
	if o.Output != nil {
		c.device.output = OutputDevice
		c.output = newLineReader(o.Output, o.OnOutput, c.key, c.forgets)
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

// Saved returns what has to be known of the shell once the guest is restored. The
// shell must have been connected.
func (c *Conn) Saved(ctx context.Context) (Saved, error) {
	if err := c.acquire(ctx); err != nil {
		return Saved{}, err
	}
	defer c.release()
	return c.saved(), nil
}

func (c *Conn) saved() Saved {
	return Saved{Key: c.key, Sent: c.sent, Stderr: c.ready.stderr, Port: c.ready.port}
}

// Version tells what a guest's shell has been taught apart from what other
// versions of this package teach.
func Version() string {
	sum := sha256.Sum256([]byte(program()))
	return hex.EncodeToString(sum[:8])
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
	r, _, err := c.collect(ctx, call{command: command, limit: timeout}, c.takeTurn)
	return r, err
}

// Repeat runs a command in the guest until it succeeds (or fails, when fail is
// set), with short pauses between, but not for longer than about duration: then
// done is false. A positive limit ends each attempt with status 124.
func (c *Conn) Repeat(ctx context.Context, command string, fail bool, limit, duration time.Duration) (r machine.Result, done bool, err error) {
	return c.collect(ctx, repeated(command, fail, limit, duration), c.takeTurn)
}

func repeated(command string, fail bool, limit, duration time.Duration) call {
	until := untilSuccess
	if fail {
		until = untilFailure
	}
	return call{command: command, limit: limit, until: until, duration: duration}
}

// Receive runs a command and writes its standard output, of any length, to w.
// It is not in the result.
func (c *Conn) Receive(ctx context.Context, command string, w io.Writer) (machine.Result, error) {
	r, _, err := c.takeTurn(ctx, call{command: command}, w)
	return r, err
}

// Feed runs a command whose standard input is the next n bytes of r.
func (c *Conn) Feed(ctx context.Context, command string, r io.Reader, n int64) (machine.Result, error) {
	result, _, err := c.collect(ctx, call{command: command, input: r, inputBytes: n}, c.takeTurn)
	return result, err
}

// Send starts a command line in the guest and does not wait for it. Its output
// is dropped.
func (c *Conn) Send(ctx context.Context, command string, timeout time.Duration) error {
	if err := c.acquire(ctx); err != nil {
		return err
	}
	defer c.release()
	return c.start(ctx, command, timeout)
}

// start is Send for who has the turn.
func (c *Conn) start(ctx context.Context, command string, timeout time.Duration) error {
	prefix := ""
	if timeout > 0 {
		prefix = "timeout " + strconv.FormatFloat(timeout.Seconds(), 'f', -1, 64) + " "
	}
	return c.send(ctx, prefix+"bash -c "+machine.Quote("set -euo pipefail; "+command)+" </dev/null >/dev/null\n")
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
