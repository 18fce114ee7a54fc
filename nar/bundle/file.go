package bundle

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"vm-prebuild/nar/binarycache"
	"vm-prebuild/nar/compress"
	"vm-prebuild/nar/narinfo"
)

// readBuffer is how much is read at once.
const readBuffer = 64 << 10

// File is a bundle that can be read anywhere, by several goroutines at once.
type File struct {
	*metadata
	r            io.ReaderAt
	name         string
	ends         []int64 // of the archives: ends[i] is where number i ends, ends[i-1] where it begins
	begin        int64   // of the first
	decompressor compress.Decompressor
}

// Open reads what a bundle of size bytes says of itself, and no archive. What is
// wrong with it is an *Error. name is for messages.
func Open(r io.ReaderAt, size int64, name string) (*File, error) {
	head := &reader{r: bufio.NewReaderSize(io.NewSectionReader(r, 0, size), readBuffer), name: name}
	m, err := readMetadata(head)
	if err != nil {
		return nil, err
	}
	f := &File{metadata: m, r: r, name: name, begin: head.offset}
	at := size - trailerSize
	if at < head.offset {
		return nil, &Error{Name: name, Offset: size, Reason: "the bundle ends before its trailer: it has been cut off", Err: io.ErrUnexpectedEOF}
	}
	trailer := make([]byte, trailerSize)
	if _, err := r.ReadAt(trailer, at); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read bundle %s: %w", name, err)
	}
	if !bytes.HasSuffix(trailer, []byte(magic)) {
		return nil, &Error{Name: name, Offset: size, Reason: "the bundle does not end in a trailer: it has been cut off", Err: io.ErrUnexpectedEOF}
	}
	offset := binary.LittleEndian.Uint64(trailer)
	length := 8 * int64(len(m.infos))
	if offset > uint64(at) || int64(offset) != at-length {
		return nil, &Error{Name: name, Offset: at, Reason: fmt.Sprintf("the index cannot be at %d", offset)}
	}
	index := make([]byte, length)
	if _, err := r.ReadAt(index, int64(offset)); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read bundle %s: %w", name, err)
	}
	if err := m.checkEnd(index, trailer); err != nil {
		return nil, &Error{Name: name, Offset: at, Reason: err.Error()}
	}
	before := f.begin
	for i := range m.infos {
		begin := binary.LittleEndian.Uint64(index[8*i:])
		if i == 0 && begin != uint64(f.begin) || begin < uint64(before) || begin > offset {
			return nil, &Error{Name: name, Offset: int64(offset), Reason: fmt.Sprintf("%s cannot be at %d", m.infos[i].StorePath, begin)}
		}
		if i > 0 {
			f.ends = append(f.ends, int64(begin))
		}
		before = int64(begin)
	}
	if len(m.infos) == 0 && int64(offset) != f.begin {
		return nil, &Error{Name: name, Offset: f.begin, Reason: "there is something where no path is"}
	}
	f.ends = append(f.ends, int64(offset))
	return f, nil
}

// checkEnd checks the hash of index and trailer, and the number of paths.
func (m *metadata) checkEnd(index, trailer []byte) error {
	digest := sha256.New()
	digest.Write(m.digest[:])
	digest.Write(index)
	digest.Write(trailer[:16])
	if !bytes.Equal(digest.Sum(nil), trailer[16:16+sha256.Size]) {
		return errors.New("the hash of the index is not the one that it should have")
	}
	if count := binary.LittleEndian.Uint64(trailer[8:]); count != uint64(len(m.infos)) {
		return fmt.Errorf("the index is of %d paths, the metadata of %d", count, len(m.infos))
	}
	return nil
}

// Infos returns what the bundle says of its paths, each after those that it
// refers to. The caller must not change it.
func (f *File) Infos() []*narinfo.NarInfo { return f.infos }

// Unpack makes the files of a path as name in the open directory dir, as
// [binarycache.UnpackArchive] does.
func (f *File) Unpack(ctx context.Context, info *narinfo.NarInfo, dir *os.File, name string) error {
	i, err := f.find(f.name, info)
	if err != nil {
		return err
	}
	begin := f.begin
	if i > 0 {
		begin = f.ends[i-1]
	}
	section := bufio.NewReaderSize(io.NewSectionReader(f.r, begin, f.ends[i]-begin), readBuffer)
	c := &chunks{reader: &reader{r: section, name: f.name, offset: begin}}
	if err := unpack(ctx, c, info, &f.decompressor, dir, name); err != nil {
		return err
	}
	if c.offset != f.ends[i] {
		return c.errorf(nil, "%s ends before where the next one begins, at %d", info.StorePath, f.ends[i])
	}
	return nil
}

// unpack makes the files of the path whose chunks c reads, and reads these to
// their end.
func unpack(ctx context.Context, c *chunks, info *narinfo.NarInfo, d *compress.Decompressor, dir *os.File, name string) error {
	err := binarycache.UnpackArchive(ctx, c, info, d, dir, name)
	if c.err != nil {
		return c.err
	}
	if err != nil {
		return contentsError(c.name, err)
	}
	return c.skip()
}

// contentsError says which bundle has wrong contents.
func contentsError(name string, err error) error {
	if contents, ok := errors.AsType[*binarycache.ContentsError](err); ok {
		return fmt.Errorf("bundle %s: %w", name, contents)
	}
	return err
}
