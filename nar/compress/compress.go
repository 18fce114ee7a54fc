// Package compress compresses and decompresses the archives of a binary cache.
// [New] makes a [Compressor], which compresses many streams at once and several
// parts of a long one at once, within bounded memory; a [Decompressor] reads
// them again.
//
// A stream is cut into frames of fixed size that are compressed on their own
// and written one after the other. All that decompresses zstd (RFC 8878,
// section 3) or xz (The .xz File Format, section 2) takes such a sequence for
// one stream. What comes out depends on what goes in, the method and the level
// alone, not on the machine.
//
// Zstd is written by the reference implementation, libzstd: at level 3 its
// archives of the closures that were measured were 1 to 2 % smaller than those of
// the implementation in Go, in as much time, and no larger than Nix's. It is read
// by the one in Go, because what is read comes from strangers, and memory is safe
// there. Xz is written by
// the program xz, as Go packages take three times as long for 28 % more space,
// and read in Go, so that reading needs no program.
package compress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"

	"github.com/DataDog/zstd"
)

// Method is a method of compression, by its name in a narinfo.
type Method string

// The methods that are written and read. Of those that others write into their
// caches, bzip2 and gzip are read, too.
const (
	None  Method = "none"
	Zstd  Method = "zstd"
	XZ    Method = "xz"
	Bzip2 Method = "bzip2"
	Gzip  Method = "gzip"
)

// Suffix is what the names of files that are compressed so end in.
func (m Method) Suffix() string {
	switch m {
	case Zstd:
		return ".zst"
	case XZ:
		return ".xz"
	case Bzip2:
		return ".bz2"
	case Gzip:
		return ".gz"
	default:
		return ""
	}
}

// Levels returns the least and the highest level of a method, and the one that
// level 0 stands for. All are 0 for a method without levels.
func (m Method) Levels() (least, highest, usual int) {
	switch m {
	case Zstd:
		return 1, 19, 3
	case XZ:
		return 1, 9, 6
	default:
		return 0, 0, 0
	}
}

const (
	// frameSize is that of all frames of a stream but the last. Twice as large
	// ones are smaller by one part in a thousand, and take twice the memory.
	frameSize = 8 << 20
	// smallFrame is the size up to which a stream is compressed with the small
	// buffers of which there is one for each of many goroutines.
	smallFrame = 1 << 20
	// maxFrames bounds how many large frames are compressed at once: reading
	// and hashing an archive, which no two goroutines can share, is about as
	// fast as this many of them.
	maxFrames = 6
	// At high levels, each takes 100 MiB.
	highLevel     = 13
	maxHighFrames = 2
)

// Compressor compresses streams. Its methods may be called by several
// goroutines at once.
type Compressor struct {
	method       Method
	level        int
	small, large class
	slots        chan struct{} // of running xz processes, one each
}

// class has what frames up to a size are compressed with. Buffers come back to
// where they are taken from; nil ones are made when they are first needed.
type class struct {
	size    int
	frames  chan []byte
	outputs chan []byte // for what they become
	zstd    chan zstd.Ctx
}

// New returns a Compressor for method [None], [Zstd] or [XZ], which compresses
// up to jobs frames at once (fewer large ones). Level 0 is the usual one.
//
// Method XZ runs the program xz.
func New(method Method, level, jobs int) (*Compressor, error) {
	least, highest, usual := method.Levels()
	if level == 0 {
		level = usual
	}
	if level < least || level > highest {
		return nil, fmt.Errorf("compress: %s has levels %d to %d, not %d", method, least, highest, level)
	}
	frames := min(jobs, maxFrames)
	if method == Zstd && level >= highLevel {
		frames = min(jobs, maxHighFrames)
	}
	c := &Compressor{method: method, level: level, small: newClass(smallFrame, jobs), large: newClass(frameSize, frames)}
	switch method {
	case None:
	case XZ:
		if _, err := exec.LookPath("xz"); err != nil {
			return nil, fmt.Errorf("compress: %w\nhint: install XZ Utils, or use zstd", err)
		}
		c.slots = make(chan struct{}, frames)
	case Zstd:
		c.small.zstd, c.large.zstd = contexts(jobs), contexts(frames)
	default:
		return nil, fmt.Errorf("compress: %q cannot be written", method)
	}
	return c, nil
}

// newClass has buffers for n frames that are being compressed and one that is
// being filled.
func newClass(size, n int) class {
	c := class{size: size, frames: make(chan []byte, n+1), outputs: make(chan []byte, n+1)}
	for range n + 1 {
		c.frames <- nil
		c.outputs <- nil
	}
	return c
}

func contexts(n int) chan zstd.Ctx {
	c := make(chan zstd.Ctx, n)
	for range n {
		c <- zstd.NewCtx()
	}
	return c
}

// Method is the method given to New.
func (c *Compressor) Method() Method { return c.method }

// encode returns what frame becomes, in buf if that is large enough.
func (c *Compressor) encode(ctx context.Context, buf, frame []byte) ([]byte, error) {
	if c.method == XZ {
		return c.runXZ(ctx, buf, frame)
	}
	class := &c.large
	if len(frame) <= smallFrame {
		class = &c.small
	}
	if most := zstd.CompressBound(class.size); cap(buf) < most {
		buf = make([]byte, most) // for all that come
	}
	encoder := <-class.zstd
	defer func() { class.zstd <- encoder }()
	return encoder.CompressLevel(buf, frame, c.level)
}

func (c *Compressor) runXZ(ctx context.Context, buf, frame []byte) ([]byte, error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	out := bytes.NewBuffer(buf[:0])
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "xz", "--compress", "--stdout", "--threads=1", "-"+strconv.Itoa(c.level))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(frame), out, &stderr
	// Its defaults come from the environment, too; they are not to change ours.
	cmd.Env = append(cmd.Environ(), "XZ_DEFAULTS=", "XZ_OPT=")
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("xz: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return out.Bytes(), nil
}

var errClosed = errors.New("compress: write to a stream after its end")

// NewWriter returns a stream that compresses to w what is written to it. Each
// frame is one call of w.Write, from one goroutine at a time. size is how long the stream will be
// in bytes; 0 if that is not known. Whoever has it must call Close, also after
// an error: goroutines may be at work for it.
func (c *Compressor) NewWriter(ctx context.Context, w io.Writer, size int64) io.WriteCloser {
	if c.method == None {
		return &plain{w}
	}
	s := &stream{Compressor: c, w: w, class: &c.large}
	if 0 < size && size <= smallFrame {
		s.class = &c.small
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	return s
}

type plain struct{ io.Writer }

func (*plain) Close() error { return nil }

// stream is one that is being compressed.
type stream struct {
	*Compressor
	class  *class
	ctx    context.Context // ends with the first error
	cancel context.CancelCauseFunc
	w      io.Writer
	buf    []byte     // the frame that is being filled; nil if there is none
	last   chan error // gets the result of the frame before; nil if there is none
}

// Write fills frames and has each full one compressed while the next fills.
func (s *stream) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if s.buf == nil {
			select {
			case s.buf = <-s.class.frames:
			case <-s.ctx.Done():
				return written, context.Cause(s.ctx)
			}
			if s.buf == nil {
				s.buf = make([]byte, 0, s.class.size)
			}
		}
		n := min(len(p), s.class.size-len(s.buf))
		s.buf = append(s.buf, p[:n]...)
		p = p[n:]
		written += n
		if len(p) > 0 { // so the frame is full, and not the last
			s.cut()
		}
	}
	return written, nil
}

// cut has the current frame compressed and written after the one before, by a
// goroutine that Close waits for. A frame has the buffer for its output before
// the next one asks for its own: it could wait for that for ever, as the next
// one waits for it.
func (s *stream) cut() {
	frame, before, done, out := s.buf, s.last, make(chan error, 1), <-s.class.outputs
	s.buf, s.last = nil, done
	go func() { done <- s.frame(frame, out, before) }()
}

// frame compresses one frame and writes it once the one before is written.
func (s *stream) frame(frame, out []byte, before chan error) error {
	out, err := s.encode(s.ctx, out, frame)
	s.class.frames <- frame[:0]
	defer func() { s.class.outputs <- out }()
	if before != nil {
		if err := <-before; err != nil {
			return err
		}
	}
	if err == nil {
		_, err = s.w.Write(out)
	}
	if err != nil {
		s.cancel(err)
	}
	return err
}

// Close compresses the last frame and waits until all is written. After an
// error of Write it returns the cause of that.
func (s *stream) Close() error {
	defer s.cancel(errClosed)
	var err error
	switch {
	case s.buf != nil && s.ctx.Err() == nil:
		err = s.frame(s.buf, <-s.class.outputs, s.last)
	case s.buf != nil:
		s.class.frames <- s.buf[:0]
		fallthrough
	default:
		if s.last != nil {
			err = <-s.last
		}
		if err == nil {
			err = context.Cause(s.ctx)
		}
	}
	s.buf, s.last = nil, nil
	return err
}
