// Package bundle reads and writes bundles: a closure in one file, for a CI cache
// or a pipe. [Write] writes one, [Open] reads a file, of which only what is
// wanted is touched, and [NewStream] reads what comes from a pipe, while it comes.
//
// The format is our own. Integers are unsigned and little-endian.
//
//	bundle   = header metadata data index trailer
//	header   = "vm-prebuild bundle 1\n"
//	metadata = packed (8 bytes), unpacked (8 bytes): lengths of what follows
//	           zstd frames (packed bytes): the narinfo of each path and an empty
//	           line, one after the other, each after those that it refers to
//	           SHA-256 of all before (32 bytes)
//	data     = archive of each path, in the same order
//	archive  = chunks, each a length (4 bytes, not 0) and so many bytes; 0 (4 bytes).
//	           The chunks together are zstd frames, of which the archive comes.
//	index    = offset of each archive in the bundle (8 bytes each)
//	trailer  = offset of the index (8 bytes), number of paths (8 bytes)
//	           SHA-256 of: the one of metadata, the index, offset and number
//	           "vm-prebuild bundle 1\n"
//
// A narinfo has neither FileHash nor FileSize; its URL is not used. Since the
// metadata come first, who reads a stream knows what it will bring; since index
// and trailer have their places, who reads a file finds everything in it. The
// same closure makes the same bundle, byte for byte.
package bundle

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"vm-prebuild/nar/binarycache"
	"vm-prebuild/nar/compress"
	"vm-prebuild/nar/narinfo"
)

// magic begins and ends a bundle. The number is that of the format's version.
const magic = "vm-prebuild bundle 1\n"

const (
	trailerSize = 8 + 8 + sha256.Size + int64(len(magic))

	// Bounds on what a bundle can make its reader do.
	maxMetadata = 64 << 20 // bytes, packed and unpacked
	maxPaths    = 1 << 20
	maxChunk    = 64 << 20 // bytes; what is written has at most a few MiB
)

// Error says what is wrong with a bundle.
type Error struct {
	Name   string // of the bundle, as given
	Offset int64  // in the bundle, in bytes
	Reason string
	Err    error // the cause; may be nil
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: offset %d: %s", e.Name, e.Offset, e.Reason)
}

func (e *Error) Unwrap() error { return e.Err }

// ExitCode is that of bad input.
func (e *Error) ExitCode() int { return 2 }

// reader reads a bundle from its beginning, and knows where it is.
type reader struct {
	r      io.Reader
	name   string
	offset int64
}

func (r *reader) errorf(err error, format string, args ...any) error {
	return &Error{Name: r.name, Offset: r.offset, Reason: fmt.Sprintf(format, args...), Err: err}
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.offset += int64(n)
	return n, err
}

// full fills p; what says what the bundle should have there.
func (r *reader) full(p []byte, what string) error {
	_, err := io.ReadFull(r, p)
	return r.cut(err, what)
}

// cut makes of the end of the bundle an error that says where it is.
func (r *reader) cut(err error, what string) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return r.errorf(io.ErrUnexpectedEOF, "the bundle ends within %s: it has been cut off", what)
	}
	if err != nil {
		return fmt.Errorf("read bundle %s: %w", r.name, err)
	}
	return nil
}

// metadata is what a bundle begins with.
type metadata struct {
	infos  []*narinfo.NarInfo // each after those that it refers to
	index  map[string]int     // of a store path in infos
	digest [sha256.Size]byte
}

// readMetadata reads header and metadata. The paths are a closure in order.
func readMetadata(r *reader) (*metadata, error) {
	digest := sha256.New()
	begin := make([]byte, len(magic)+16)
	n, err := io.ReadFull(r, begin)
	if !bytes.HasPrefix(begin[:n], []byte(magic)) && !strings.HasPrefix(magic, string(begin[:n])) || n == 0 && err != nil {
		return nil, r.errorf(err, "not a bundle, or one of another version: it does not begin with %q", magic)
	}
	if err := r.cut(err, "its header"); err != nil {
		return nil, err
	}
	digest.Write(begin)
	packed := binary.LittleEndian.Uint64(begin[len(magic):])
	unpacked := binary.LittleEndian.Uint64(begin[len(magic)+8:])
	if packed > maxMetadata || unpacked > maxMetadata {
		return nil, r.errorf(nil, "metadata of %d bytes, %d unpacked, are more than %d", packed, unpacked, maxMetadata)
	}
	// A length that lies does not make us allocate more than has arrived.
	var frames bytes.Buffer
	if _, err := io.CopyN(&frames, r, int64(packed)); err != nil {
		return nil, r.cut(err, "its metadata")
	}
	digest.Write(frames.Bytes())
	m := &metadata{}
	digest.Sum(m.digest[:0])
	var stored [sha256.Size]byte
	if err := r.full(stored[:], "its metadata"); err != nil {
		return nil, err
	}
	if stored != m.digest {
		return nil, r.errorf(nil, "the hash of the metadata is not the one that they should have")
	}
	var d compress.Decompressor
	text, err := d.NewReader(&frames, compress.Zstd)
	if err != nil {
		return nil, r.errorf(err, "metadata: %v", err)
	}
	defer text.Close()
	limited := &io.LimitedReader{R: text, N: int64(unpacked) + 1}
	if err := m.parse(r, bufio.NewReaderSize(limited, readBuffer)); err != nil {
		return nil, err
	}
	if limited.N != 1 {
		return nil, r.errorf(nil, "metadata have not the %d bytes that they should have", unpacked)
	}
	return m, nil
}

// parse reads the narinfos, one after the other.
func (m *metadata) parse(r *reader, text *bufio.Reader) error {
	m.index = map[string]int{}
	var one bytes.Buffer
	for {
		one.Reset()
		err := cutNarInfo(&one, text)
		if errors.Is(err, io.EOF) {
			if one.Len() > 0 {
				return r.errorf(nil, "metadata: a narinfo without an empty line after it")
			}
			return nil
		}
		if err != nil {
			return r.errorf(err, "metadata: %v", err)
		}
		info, err := narinfo.Parse(&one, fmt.Sprintf("%s: narinfo %d", r.name, len(m.infos)+1))
		if err != nil {
			return err
		}
		if compress.Method(info.Compression) != compress.Zstd {
			return r.errorf(nil, "%s: compression is %q, not zstd", info.StorePath, info.Compression)
		}
		if _, again := m.index[info.StorePath]; again {
			return r.errorf(nil, "%s is there twice", info.StorePath)
		}
		m.index[info.StorePath] = len(m.infos)
		m.infos = append(m.infos, info)
		if len(m.infos) > maxPaths {
			return r.errorf(nil, "more than %d paths", maxPaths)
		}
		for _, reference := range info.References {
			if _, ok := m.index[reference]; !ok {
				return r.errorf(nil, "%s refers to %s, which is not in the bundle before it", info.StorePath, reference)
			}
		}
	}
}

// cutNarInfo takes a narinfo, and the empty line after it, out of text.
func cutNarInfo(one *bytes.Buffer, text *bufio.Reader) error {
	begin := true // of a line
	for {
		part, err := text.ReadSlice('\n')
		if begin && string(part) == "\n" {
			return nil
		}
		one.Write(part)
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		begin = err == nil
	}
}

// find returns the number of a store path.
func (m *metadata) find(name string, info *narinfo.NarInfo) (int, error) {
	i, ok := m.index[info.StorePath]
	if !ok {
		return 0, fmt.Errorf("bundle %s: %s: %w", name, info.StorePath, binarycache.ErrNotFound)
	}
	return i, nil
}

// chunks reads the chunks of an archive as one stream.
type chunks struct {
	*reader
	left uint32 // bytes of the current chunk
	done bool   // the end of the archive has been read
	err  error  // of reading, or of the format
}

func (c *chunks) Read(p []byte) (int, error) {
	for c.left == 0 {
		if c.err == nil && !c.done {
			c.err = c.next()
		}
		if c.err != nil {
			return 0, c.err
		}
		if c.done {
			return 0, io.EOF
		}
	}
	n, err := c.reader.Read(p[:min(len(p), int(c.left))])
	c.left -= uint32(n)
	if err != nil && (n == 0 || !errors.Is(err, io.EOF)) {
		c.err = c.cut(err, "an archive")
		return n, c.err
	}
	return n, nil
}

// next reads the length of the next chunk.
func (c *chunks) next() error {
	var length [4]byte
	if err := c.full(length[:], "an archive"); err != nil {
		return err
	}
	c.left = binary.LittleEndian.Uint32(length[:])
	c.done = c.left == 0
	if c.left > maxChunk {
		return c.errorf(nil, "a chunk of %d bytes is more than %d", c.left, maxChunk)
	}
	return nil
}

// skip reads to the end of the archive.
func (c *chunks) skip() error {
	_, err := io.Copy(io.Discard, c)
	return err
}
