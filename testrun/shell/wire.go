package shell

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// chunk is how many bytes of base64 the guest sends before it waits for us. The
// buffer of QEMU's socket takes at least twice as much, in writes of 2 KiB.
const chunk = 32 << 10

// maxLine bounds one line from the guest.
const maxLine = 1 << 20

// maxRaw bounds the raw bytes of one frame. The guest sends no more than 5 KiB.
const maxRaw = 64 << 10

type frameKind int

const (
	frameLine frameKind = iota + 1 // any other line: base64, or not ours
	frameOut
	frameEnd
	frameReady
)

const (
	howPort  = "port"
	howAgain = "again"
)

// frame is what the guest sends; guest.sh describes it.
type frame struct {
	kind   frameKind
	text   string // of a line
	number uint64
	status int
	how    string
	raw    []byte

	stderr, port bool // what the guest has found, when it is ready
}

var errLineTooLong = fmt.Errorf("the guest's shell sent a line of more than %d bytes", maxLine)

// readFrame reads one frame.
func readFrame(r *bufio.Reader) (frame, error) {
	line, err := readLine(r)
	if err != nil {
		return frame{}, err
	}
	f, length, ok := parseFrame(line)
	if !ok {
		return frame{kind: frameLine, text: line}, nil
	}
	nul := f.kind == frameOut && f.how == "1"
	f.raw = make([]byte, length, length+1)
	if _, err := io.ReadFull(r, f.raw); err != nil {
		return frame{}, err
	}
	if nul {
		f.raw = append(f.raw, 0)
	}
	return f, nil
}

// parseFrame parses the line of a frame and returns how many raw bytes follow.
// What others have written to the guest's console without a line end may stand
// before it.
func parseFrame(line string) (f frame, length int, ok bool) {
	at := strings.LastIndex(line, "vmt-")
	if at < 0 {
		return frame{}, 0, false
	}
	words := strings.Split(line[at:], " ")
	switch {
	case words[0] == "vmt-ready" && len(words) == 3:
		return frame{kind: frameReady, stderr: words[1] == "1", port: words[2] == "1"}, 0, true
	case words[0] == "vmt-out" && len(words) == 4:
		f.kind, f.how = frameOut, words[3]
	case words[0] == "vmt-end" && len(words) == 5:
		f.kind, f.how = frameEnd, words[4]
	default:
		return frame{}, 0, false
	}
	var errs [3]error
	f.number, errs[0] = strconv.ParseUint(words[1], 10, 64)
	if f.kind == frameEnd {
		f.status, errs[1] = strconv.Atoi(words[2])
	}
	length, errs[2] = strconv.Atoi(words[len(words)-2])
	if errors.Join(errs[:]...) != nil || length < 0 || length > maxRaw || f.status < 0 || f.status > 255 {
		return frame{}, 0, false
	}
	return f, length, true
}

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

// readFrames hands frames to whoever waits for them.
func (c *Conn) readFrames() {
	defer close(c.done)
	r := bufio.NewReaderSize(c.conn, 64<<10)
	for {
		f, err := readFrame(r)
		if err != nil {
			c.err = ErrClosed
			if errors.Is(err, errLineTooLong) {
				c.err = err
				c.conn.Close()
			}
			return
		}
		select {
		case c.frames <- f:
		case <-c.closing:
			c.err = ErrClosed
			return
		}
	}
}

// readData hands what comes by the data port to whoever waits for it; the guest
// waits meanwhile.
func (c *Conn) readData() {
	for {
		buf := make([]byte, 64<<10)
		n, err := c.data.Read(buf)
		if n > 0 {
			select {
			case c.chunks <- buf[:n]:
			case <-c.closing:
				return
			}
		}
		if err != nil {
			return // the reader of frames meets the same end
		}
	}
}

// frame returns the next frame of the guest.
func (c *Conn) frame(ctx context.Context) (frame, error) {
	select {
	case f := <-c.frames:
		return f, nil
	case <-c.done:
		return frame{}, c.err
	case <-ctx.Done():
		return frame{}, context.Cause(ctx)
	}
}

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

// writeAll writes p; a guest that does not read cannot hold it up beyond ctx.
func writeAll(ctx context.Context, conn net.Conn, p []byte) (int, error) {
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		// A deadline in the past ends the Write that is under way.
		_ = conn.SetWriteDeadline(time.Unix(1, 0))
		close(fired)
	})
	n, err := conn.Write(p)
	if !stop() {
		<-fired
		_ = conn.SetWriteDeadline(time.Time{})
	}
	return n, err
}

// send writes s. A line of which only a part was taken cannot be taken back,
// so the connection is closed then.
func (c *Conn) send(ctx context.Context, s string) error {
	n, err := writeAll(ctx, c.conn, []byte(s))
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

// lineReader hands on lines of a console, and keeps those of the command that
// runs.
type lineReader struct {
	conn net.Conn
	emit func(string)
	key  string

	partial sync.Mutex
	begun   []byte // a line that has not ended; guarded by partial

	mu     sync.Mutex
	kept   []byte
	marked uint64        // number of the last mark
	news   chan struct{} // closed and replaced at each mark
}

// maxKept bounds what is kept of a command's standard error: its end.
const maxKept = 64 << 10

func newLineReader(conn net.Conn, emit func(string), key string) *lineReader {
	return &lineReader{conn: conn, emit: emit, key: key, news: make(chan struct{})}
}

func (l *lineReader) read() {
	chunk := make([]byte, 16<<10)
	for {
		n, err := l.conn.Read(chunk)
		l.take(chunk[:n])
		if err != nil {
			return
		}
	}
}

// take handles the lines that p completes.
func (l *lineReader) take(p []byte) {
	l.partial.Lock()
	defer l.partial.Unlock()
	for len(p) > 0 {
		line, rest, ended := bytes.Cut(p, []byte{'\n'})
		l.begun = append(l.begun, line...)
		if ended || len(l.begun) > maxKept {
			l.line(l.begun)
			l.begun = l.begun[:0]
		}
		p = rest
	}
}

func (l *lineReader) line(raw []byte) {
	text := strings.TrimRight(strings.ToValidUTF8(string(raw), "\uFFFD"), "\r\n")
	before, number, marked := strings.Cut(text, l.key)
	if before != "" || !marked {
		l.mu.Lock()
		l.kept = append(append(l.kept, before...), '\n')
		if over := len(l.kept) - maxKept; over > 0 {
			l.kept = bytes.Clone(l.kept[over:])
		}
		l.mu.Unlock()
		l.emit(before)
	}
	if n, err := strconv.ParseUint(number, 10, 64); marked && err == nil {
		l.mu.Lock()
		l.marked = n
		close(l.news)
		l.news = make(chan struct{})
		l.mu.Unlock()
	}
}

// forget drops what earlier commands have written. A line that they have not
// ended ends here.
func (l *lineReader) forget() {
	l.partial.Lock()
	if len(l.begun) > 0 {
		l.line(l.begun)
		l.begun = l.begun[:0]
	}
	l.partial.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = nil
}

// markLimit is how long a mark may take that the guest has written: QEMU drops
// what a console's socket cannot take.
const markLimit = time.Second

// until returns what a command has written so far or, when it is to be marked,
// waits for the mark and returns all that came before.
func (l *lineReader) until(ctx context.Context, number uint64, mark bool) []byte {
	late := time.NewTimer(markLimit)
	defer late.Stop()
	for {
		l.mu.Lock()
		kept, marked, news := l.kept, l.marked, l.news
		l.mu.Unlock()
		if marked >= number || !mark {
			return bytes.Clone(kept)
		}
		select {
		case <-news:
		case <-late.C:
			return bytes.Clone(kept)
		case <-ctx.Done():
			return bytes.Clone(kept)
		}
	}
}
