package qemu

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// console keeps what the guest writes to its serial port.
type console struct {
	mu      sync.Mutex
	text    []string      // lines that have ended
	begun   []byte        // the line that has not
	rest    string        // begun, as it is shown
	changed chan struct{} // closed and replaced whenever there is more
	ended   bool          // there will be no more

	// What scripts have waited for with success is behind them: position is
	// the line where the next wait begins, and column the byte in it.
	position, column int
	rewinds          int // how often position may have gone back

	settling chan chan struct{} // has room for one who waits for settle
}

func newConsole() *console {
	return &console{changed: make(chan struct{}), settling: make(chan chan struct{}, 1)}
}

// maxConsoleLine is where a line without an end is broken, so that a guest
// that writes no line feed costs no more than this.
const maxConsoleLine = 64 << 10

// read takes text from r until it ends and hands each line to emit.
func (c *console) read(r io.Reader, emit func(line string)) {
	chunk := make([]byte, 16<<10)
	for {
		n, err := r.Read(chunk)
		var settled chan struct{}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			select {
			case settled = <-c.settling:
				err = nil
			default:
			}
		}
		for _, l := range c.add(chunk[:n], err != nil) {
			emit(l)
		}
		if settled != nil {
			for _, l := range c.add(waiting(r.(*os.File)), false) {
				emit(l)
			}
			close(settled)
		}
		if err != nil {
			return
		}
	}
}

// waiting returns what a pipe holds.
func waiting(f *os.File) []byte {
	_ = f.SetReadDeadline(time.Time{})
	raw, err := f.SyscallConn()
	if err != nil {
		return nil
	}
	var all []byte
	chunk := make([]byte, 16<<10)
	_ = raw.Read(func(fd uintptr) bool {
		for {
			n, err := unix.Read(int(fd), chunk)
			if n <= 0 && !errors.Is(err, unix.EINTR) {
				return true // the end is read once more
			}
			all = append(all, chunk[:max(0, n)]...)
		}
	})
	return all
}

// settle returns when the console has all that a guest has written to f, from
// which it reads. The guest is stopped, or there is no end to it.
func (c *console) settle(ctx context.Context, f *os.File) error {
	settled := make(chan struct{})
	select {
	case c.settling <- settled:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := f.SetReadDeadline(time.Unix(1, 0)); err != nil { // ends the Read that is under way
		return err
	}
	select {
	case <-settled:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// consoleMark is where a console was at some moment.
type consoleMark struct {
	text             []string
	begun            []byte
	rest             string
	position, column int
}

func (c *console) mark() consoleMark {
	c.mu.Lock()
	defer c.mu.Unlock()
	return consoleMark{slices.Clip(c.text), slices.Clone(c.begun), c.rest, c.position, c.column}
}

// rewind makes the console what it was at a mark, which may be one of a time that
// another rewind has undone. Nothing changes lines that are there, so what a mark
// has need not be copied.
func (c *console) rewind(m consoleMark) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = m.text
	c.begun, c.rest = slices.Clone(m.begun), m.rest
	c.position, c.column = m.position, m.column
	c.rewinds++
	c.announce()
}

// printable is raw without carriage returns and what is not text: firmware
// and boot menus write both.
func printable(raw []byte) string {
	return strings.ReplaceAll(strings.ToValidUTF8(string(raw), ""), "\r", "")
}

// add takes what the serial port has written, and its end, and returns the
// lines that ended.
func (c *console) add(raw []byte, ended bool) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := len(c.text)
	for _, b := range raw {
		c.begun = append(c.begun, b)
		if b == '\n' || len(c.begun) == maxConsoleLine {
			c.endLine()
		}
	}
	if ended && len(c.begun) > 0 {
		c.endLine()
	}
	c.rest, c.ended = printable(c.begun), ended
	c.announce()
	return slices.Clone(c.text[before:])
}

// insert takes a line that comes from elsewhere, as a terminal would: the line
// that has not ended ends before it. It returns the lines that there are more.
func (c *console) insert(line string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := len(c.text)
	if len(c.begun) > 0 {
		c.endLine()
	}
	c.text = append(c.text, line)
	c.rest = ""
	c.announce()
	return slices.Clone(c.text[before:])
}

func (c *console) endLine() {
	c.text = append(c.text, strings.TrimRight(printable(c.begun), " \t\n"))
	c.begun = c.begun[:0]
}

func (c *console) announce() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// lines returns all lines, the unended one included.
func (c *console) lines() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := slices.Clone(c.text)
	if c.rest != "" {
		lines = append(lines, c.rest)
	}
	return lines
}

// errConsoleEnded says that a console will show nothing more.
var errConsoleEnded = errors.New("the serial console has ended")

// follow hands f the text from the position on, and more whenever there is:
// lines that have ended, each once, and the beginning of one that has not.
// When f returns n > 0 that many lines are behind the position, the unended
// one included, and follow returns. The error is f's, ctx's cause, or
// errConsoleEnded.
func (c *console) follow(ctx context.Context, f func(lines []string, rest string) (int, error)) error {
	c.mu.Lock()
	at, column, rewinds := c.position, c.column, c.rewinds
	c.mu.Unlock()
	for {
		c.mu.Lock()
		if c.rewinds != rewinds {
			at, column, rewinds = c.position, c.column, c.rewinds
		}
		lines, rest := slices.Clone(c.text[at:]), c.rest
		changed, ended := c.changed, c.ended
		c.mu.Unlock()

		all := append(lines, rest)
		all[0] = all[0][min(column, len(all[0])):]
		n, err := f(all[:len(lines)], all[len(lines)])
		switch {
		case err != nil:
			return err
		case n > len(lines): // rest may have grown in the meantime
			if len(lines) > 0 {
				column = 0
			}
			c.step(rewinds, at+len(lines), column+len(all[len(lines)]))
			return nil
		case n > 0:
			c.step(rewinds, at+n, 0)
			return nil
		case ended:
			return errConsoleEnded
		}
		if len(lines) > 0 {
			at, column = at+len(lines), 0
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// step moves the position forward. Another wait may have moved it further, and a
// rewind back.
func (c *console) step(rewinds, position, column int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if rewinds != c.rewinds {
		return
	}
	if position > c.position || position == c.position && column > c.column {
		c.position, c.column = position, column
	}
}

// consoleGrace is how long the console of a machine that has ended may still
// have something to say: a guest that panics tells QEMU of it first.
const consoleGrace = 2 * time.Second

// outlive is bind with some time between the end of the process and that of the
// context.
func (p *process) outlive(ctx context.Context, grace time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(p.ctx, func() {
		select {
		case <-time.After(grace):
			cancel(p.death())
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// FollowConsole implements machine.ConsoleFollower.
func (m *Machine) FollowConsole(ctx context.Context, f func(lines []string, rest string) (int, error)) error {
	p, c := m.latestConsole()
	if c == nil {
		_, err := m.live() // says that it does not run
		return err
	}
	if p != nil {
		var unbind func()
		ctx, unbind = p.outlive(ctx, consoleGrace)
		defer unbind()
	}
	err := c.follow(ctx, f)
	if !errors.Is(err, errConsoleEnded) {
		return err
	}
	if p != nil {
		<-p.ctx.Done() // it ends right after its console
		return p.death()
	}
	_, err = m.live()
	return err
}

// ConsoleSinceStart implements machine.ConsoleFollower.
func (m *Machine) ConsoleSinceStart() []string {
	_, c := m.latestConsole()
	if c == nil {
		return nil
	}
	return c.lines()
}

// latestConsole returns the console of the current or last run, nil before the
// first, and the process of that run unless its end was expected.
func (m *Machine) latestConsole() (*process, *console) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process != nil {
		return m.process, m.process.console
	}
	return nil, m.lastConsole
}
