package bundle

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"vm-prebuild/nar/binarycache"
	"vm-prebuild/nar/compress"
	"vm-prebuild/nar/narinfo"
)

// Stream is a bundle that is read from beginning to end, while it arrives.
type Stream struct {
	*metadata
	r            *reader
	in           *input           // that r reads
	turns        map[string]*turn // of the expected paths
	next         int              // number of the path that comes next in the bundle
	offsets      []int64          // of the archives that have come
	decompressor compress.Decompressor
}

// turn is when an expected path is read.
type turn struct {
	number int           // of the path in the bundle
	begin  chan struct{} // closed when those before have been read
	next   *turn         // nil after the last
}

// NewStream reads what a bundle says of itself, up to its first archive. What is
// wrong with it is an *Error. name is for messages. When the context of a call
// ends, so does the call, even if r then waits for its writer; r may be read
// until it has something, and must not be used by others.
func NewStream(ctx context.Context, r io.Reader, name string) (*Stream, error) {
	in := &input{ctx: ctx, r: r, buf: make([]byte, readBuffer), result: make(chan result, 1)}
	s := &Stream{r: &reader{r: in, name: name}, in: in}
	var err error
	s.metadata, err = readMetadata(s.r)
	return s, err
}

// input is a buffered reader that does not wait for a slow one after the end of
// a context.
type input struct {
	ctx     context.Context // of the call that reads
	r       io.Reader
	buf     []byte // belongs to the goroutine that reads, while there is one
	rest    []byte // of buf, not taken yet
	reading bool   // a goroutine reads, and sends a result
	result  chan result
	err     error // of r
}

type result struct {
	n   int
	err error
}

func (i *input) Read(p []byte) (int, error) {
	for len(i.rest) == 0 {
		if i.err != nil {
			return 0, i.err
		}
		if i.ctx.Err() != nil {
			return 0, context.Cause(i.ctx)
		}
		if !i.reading {
			i.reading = true
			go func() {
				n, err := i.r.Read(i.buf)
				i.result <- result{n, err}
			}()
		}
		select {
		case got := <-i.result:
			i.reading, i.rest, i.err = false, i.buf[:got.n], got.err
		case <-i.ctx.Done():
			return 0, context.Cause(i.ctx)
		}
	}
	n := copy(p, i.rest)
	i.rest = i.rest[n:]
	return n, nil
}

// Infos returns what the bundle says of its paths, in the order in which they
// come, each after those that it refers to. The caller must not change it.
func (s *Stream) Infos() []*narinfo.NarInfo { return s.infos }

// Expect says which paths Unpack will be called for: all of these, in the order
// in which they come. The others are passed over. It must be called before
// Unpack, and once.
func (s *Stream) Expect(storePaths []string) error {
	s.turns = make(map[string]*turn, len(storePaths))
	last := &turn{number: -1}
	for i, path := range storePaths {
		number, ok := s.index[path]
		if !ok || number <= last.number {
			return fmt.Errorf("bundle %s: %s is not in it, or comes earlier", s.r.name, path)
		}
		t := &turn{number: number, begin: make(chan struct{})}
		last.next, last = t, t
		s.turns[path] = t
		if i == 0 {
			close(t.begin)
		}
	}
	return nil
}

// Unpack makes the files of an expected path as name in the open directory dir,
// as [binarycache.UnpackArchive] does. It waits until the path comes; it may be
// called by several goroutines at once, which then unpack small paths at once.
// That of the last expected path reads the bundle to its end, and fails if
// anything is wrong with that. After an error, no other path can be unpacked.
func (s *Stream) Unpack(ctx context.Context, info *narinfo.NarInfo, dir *os.File, name string) error {
	t := s.turns[info.StorePath]
	if t == nil {
		return fmt.Errorf("bundle %s: %s is not expected", s.r.name, info.StorePath)
	}
	select {
	case <-t.begin:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.in.ctx = ctx // until the turn of the next one
	if err := s.skipTo(t.number); err != nil {
		return err
	}
	s.offsets = append(s.offsets, s.r.offset)
	s.next++
	c := &chunks{reader: s.r}
	if info.NarSize > inMemory {
		if err := unpack(ctx, c, info, &s.decompressor, dir, name); err != nil {
			return err
		}
		return s.pass(t)
	}
	// It is taken out of the stream, for others to go on.
	var small bytes.Buffer
	if _, err := io.Copy(&small, io.LimitReader(c, 2*inMemory)); err != nil {
		return err
	}
	if err := c.skip(); err != nil {
		return err
	}
	if err := s.pass(t); err != nil {
		return err
	}
	return contentsError(s.r.name, binarycache.UnpackArchive(ctx, &small, info, &s.decompressor, dir, name))
}

// Close reads a bundle that nothing was expected of to its end, and fails if
// anything is wrong with that: who writes into a pipe is not to be told that
// nobody wants it.
func (s *Stream) Close(ctx context.Context) error {
	if len(s.turns) > 0 {
		return nil
	}
	s.in.ctx = ctx
	return s.pass(&turn{})
}

// skipTo passes over the archives before number i.
func (s *Stream) skipTo(i int) error {
	for ; s.next < i; s.next++ {
		s.offsets = append(s.offsets, s.r.offset)
		c := chunks{reader: s.r}
		if err := c.skip(); err != nil {
			return err
		}
	}
	return nil
}

// pass lets the next expected path be read, or after the last of them reads the
// rest of the bundle.
func (s *Stream) pass(t *turn) error {
	if t.next != nil {
		close(t.next.begin)
		return nil
	}
	if err := s.skipTo(len(s.infos)); err != nil {
		return err
	}
	at := s.r.offset
	end := make([]byte, 8*int64(len(s.infos))+trailerSize)
	if err := s.r.full(end, "its index"); err != nil {
		return err
	}
	index, trailer := end[:8*len(s.infos)], end[8*len(s.infos):]
	if err := s.checkEnd(index, trailer); err != nil {
		return s.r.errorf(nil, "%v", err)
	}
	for i, offset := range append(s.offsets, at) {
		if binary.LittleEndian.Uint64(end[8*i:]) != uint64(offset) {
			return s.r.errorf(nil, "the index is wrong about what is at %d", offset)
		}
	}
	if !bytes.HasSuffix(trailer, []byte(magic)) {
		return s.r.errorf(nil, "the bundle does not end in a trailer")
	}
	if n, err := s.r.Read(make([]byte, 1)); n > 0 {
		return s.r.errorf(nil, "there is more after the end of the bundle")
	} else if !errors.Is(err, io.EOF) {
		return fmt.Errorf("read bundle %s: %w", s.r.name, err)
	}
	return nil
}
