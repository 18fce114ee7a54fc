package shell

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
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

// protocolError is what the guest has sent although it never should.
type protocolError struct{ sent string }

func (e *protocolError) Error() string { return "the guest's shell sent " + e.sent }

// readFrame reads one frame.
func readFrame(r *bufio.Reader) (frame, error) {
	line, err := readLine(r)
	if err != nil {
		return frame{}, err
	}
	f, length, err := parseFrame(line)
	if err != nil || f.kind == frameLine {
		return f, err
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
// before it. What is a frame but for its numbers is an error: whoever waits for
// it would wait for nothing.
func parseFrame(line string) (f frame, length int, err error) {
	notOurs := frame{kind: frameLine, text: line}
	at := strings.LastIndex(line, "vmt-")
	if at < 0 {
		return notOurs, 0, nil
	}
	words := strings.Split(line[at:], " ")
	switch {
	case words[0] == "vmt-ready" && len(words) == 3:
		return frame{kind: frameReady, stderr: words[1] == "1", port: words[2] == "1"}, 0, nil
	case words[0] == "vmt-out" && len(words) == 4:
		f.kind, f.how = frameOut, words[3]
	case words[0] == "vmt-end" && len(words) == 5:
		f.kind, f.how = frameEnd, words[4]
	default:
		return notOurs, 0, nil
	}
	var errs [3]error
	f.number, errs[0] = strconv.ParseUint(words[1], 10, 64)
	if f.kind == frameEnd {
		f.status, errs[1] = strconv.Atoi(words[2])
	}
	length, errs[2] = strconv.Atoi(words[len(words)-2])
	if errors.Join(errs[:]...) != nil || length < 0 || length > maxRaw || f.status < 0 || f.status > 255 {
		return frame{}, 0, &protocolError{fmt.Sprintf("the malformed line %.200q", line[at:])}
	}
	return f, length, nil
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
			return "", &protocolError{fmt.Sprintf("a line of more than %d bytes", maxLine)}
		}
	}
}

// readFrames hands frames to whoever waits for them.
func (c *Conn) readFrames() {
	defer close(c.done)
	r := bufio.NewReaderSize(c.conn, 64<<10)
	for {
		f, err := readFrame(r)
		if c.forgets(c.conn, err) {
			r.Reset(c.conn)
			continue
		}
		if err != nil {
			c.err = ErrClosed
			if p, ok := errors.AsType[*protocolError](err); ok {
				c.err = p
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
		if c.forgets(c.data, err) {
			continue
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
