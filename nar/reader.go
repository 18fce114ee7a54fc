package nar

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"vm-prebuild/nar/tree"
)

// FormatError says what is wrong with an archive.
type FormatError struct {
	Offset int64 // in the archive, of the string or padding at fault
	Reason string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("archive is malformed at byte %d: %s", e.Offset, e.Reason)
}

// Entry is a file, directory or symbolic link in an archive.
type Entry struct {
	Name       string // in its directory; empty for the root
	Depth      int    // how many directories it lies in; 0 for the root
	Type       Type
	Executable bool   // of a regular file
	Size       int64  // bytes of a regular file, as the archive claims
	Offset     int64  // of a regular file's contents, bytes from the start of the archive
	Target     string // of a symbolic link
}

// Reader reads an archive entry by entry. It takes what Dump writes and nothing
// else, and keeps nothing but its buffer and the names that lead to the current
// entry, whatever sizes the archive claims.
type Reader struct {
	r      *bufio.Reader
	offset int64    // of the next byte of r
	names  []string // of every open directory, the entry last read
	left   int64    // bytes of the current file's contents not read yet
	state  state
	err    error // is returned by all calls that follow
}

type state int

const (
	atStart   state = iota // nothing has been read
	inFile                 // the contents of a regular file come next
	inEntries              // an entry or the end of a directory comes next
)

// NewReader returns a reader of the archive that is all of r.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, bufferSize)}
}

// Next returns the next entry: the root, then each entry of a directory right
// after the directory, in the order of their names. After the last it makes sure
// that the archive ends there, and returns io.EOF. Contents that have not been
// read are skipped. Errors are a *FormatError or that of the underlying reader.
func (r *Reader) Next() (Entry, error) {
	if r.err != nil {
		return Entry{}, r.err
	}
	e, err := r.next()
	r.err = err
	return e, err
}

// Read reads from the contents of the regular file that Next has returned.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b, err := r.chunk(len(p))
	return copy(p, b), err
}

// chunk returns the next bytes of the contents, at most limit of them and as
// many as the buffer holds, or io.EOF after the last. They are valid until the
// next call of a method.
func (r *Reader) chunk(limit int) ([]byte, error) {
	if r.err != nil {
		return nil, r.err
	}
	if r.left == 0 {
		return nil, io.EOF
	}
	b, err := r.take(int(min(r.left, int64(limit), bufferSize)))
	r.left -= int64(len(b))
	r.err = err
	return b, err
}

func (r *Reader) next() (Entry, error) {
	switch r.state {
	case atStart:
		if err := r.expect(magic); err != nil {
			return Entry{}, err
		}
		return r.node(Entry{})
	case inFile:
		if err := r.endFile(); err != nil {
			return Entry{}, err
		}
	case inEntries:
	}
	for len(r.names) > 0 {
		start := r.offset
		token, err := r.keyword()
		if err != nil {
			return Entry{}, err
		}
		switch string(token) {
		case "entry":
			return r.entry()
		case ")":
			r.names = r.names[:len(r.names)-1]
			if err := r.endEntry(); err != nil {
				return Entry{}, err
			}
		default:
			return Entry{}, &FormatError{start, fmt.Sprintf("%q instead of an entry or the end of a directory", token)}
		}
	}
	return Entry{}, r.end()
}

// entry reads an entry of the innermost directory.
func (r *Reader) entry() (Entry, error) {
	if err := r.expect("(", "name"); err != nil {
		return Entry{}, err
	}
	start := r.offset
	b, err := r.string(maxName, "name")
	if err != nil {
		return Entry{}, err
	}
	name := string(b)
	if err := checkName(name); err != nil {
		return Entry{}, &FormatError{start, err.Error()}
	}
	last := &r.names[len(r.names)-1]
	if name <= *last {
		reason := fmt.Sprintf("the name %q comes after %q", name, *last)
		if name == *last {
			reason = fmt.Sprintf("the name %q is there twice", name)
		}
		return Entry{}, &FormatError{start, reason}
	}
	*last = name
	if err := r.expect("node"); err != nil {
		return Entry{}, err
	}
	return r.node(Entry{Name: name, Depth: len(r.names)})
}

// node reads what e is.
func (r *Reader) node(e Entry) (Entry, error) {
	if err := r.expect("(", "type"); err != nil {
		return Entry{}, err
	}
	start := r.offset
	token, err := r.keyword()
	if err != nil {
		return Entry{}, err
	}
	switch Type(token) {
	case TypeRegular:
		return r.regular(e)
	case TypeSymlink:
		return r.symlink(e)
	case TypeDirectory:
		e.Type = TypeDirectory
		if len(r.names) == tree.MaxDepth {
			return Entry{}, &FormatError{start, fmt.Sprintf("nested deeper than %d directories", tree.MaxDepth)}
		}
		r.names = append(r.names, "")
		r.state = inEntries
		return e, nil
	}
	return Entry{}, &FormatError{start, fmt.Sprintf("a file of type %q", token)}
}

func (r *Reader) regular(e Entry) (Entry, error) {
	start := r.offset
	token, err := r.keyword()
	if err == nil && string(token) == "executable" {
		e.Executable = true
		if err = r.expect(""); err == nil {
			start = r.offset
			token, err = r.keyword()
		}
	}
	if err != nil {
		return Entry{}, err
	}
	if string(token) != "contents" {
		return Entry{}, &FormatError{start, fmt.Sprintf("%q instead of a file's contents", token)}
	}
	start = r.offset
	size, err := r.length()
	if err != nil {
		return Entry{}, err
	}
	if size > math.MaxInt64/2 {
		return Entry{}, &FormatError{start, fmt.Sprintf("a file of %d bytes", size)}
	}
	e.Type, e.Size, e.Offset = TypeRegular, int64(size), r.offset
	r.left = e.Size
	r.state = inFile
	return e, nil
}

// endFile reads what is left of a regular file.
func (r *Reader) endFile() error {
	for r.left > 0 {
		if _, err := r.chunk(bufferSize); err != nil {
			return err
		}
	}
	if _, err := r.padded(0); err != nil {
		return err
	}
	r.state = inEntries
	if err := r.expect(")"); err != nil {
		return err
	}
	return r.endEntry()
}

func (r *Reader) symlink(e Entry) (Entry, error) {
	if err := r.expect("target"); err != nil {
		return Entry{}, err
	}
	start := r.offset
	b, err := r.string(maxTarget, "target of a symbolic link")
	if err != nil {
		return Entry{}, err
	}
	e.Type, e.Target = TypeSymlink, string(b)
	if err := checkTarget(e.Target); err != nil {
		return Entry{}, &FormatError{start, err.Error()}
	}
	r.state = inEntries
	if err := r.expect(")"); err != nil {
		return Entry{}, err
	}
	return e, r.endEntry()
}

// endEntry reads what follows a node that is an entry of a directory.
func (r *Reader) endEntry() error {
	if len(r.names) == 0 {
		return nil
	}
	return r.expect(")")
}

// end makes sure that nothing follows.
func (r *Reader) end() error {
	_, err := r.r.Peek(1)
	if err == nil {
		return &FormatError{r.offset, "more bytes after the end of the archive"}
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("read archive: %w", err)
	}
	return io.EOF
}

// expect reads the strings want.
func (r *Reader) expect(want ...string) error {
	for _, w := range want {
		start := r.offset
		got, err := r.keyword()
		if err != nil {
			return err
		}
		if string(got) != w {
			return &FormatError{start, fmt.Sprintf("%q instead of %q", got, w)}
		}
	}
	return nil
}

// keyword reads one of the format's own strings, of which magic is the longest.
func (r *Reader) keyword() ([]byte, error) {
	return r.string(len(magic), "keyword")
}

// string reads a string of at most limit bytes, which is valid until something
// else is read. What it is serves for messages.
func (r *Reader) string(limit int, what string) ([]byte, error) {
	start := r.offset
	n, err := r.length()
	if err != nil {
		return nil, err
	}
	if n > uint64(limit) {
		return nil, &FormatError{start, fmt.Sprintf("a %s of %d bytes, more than %d", what, n, limit)}
	}
	return r.padded(int(n))
}

func (r *Reader) length() (uint64, error) {
	b, err := r.take(8)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

// padded reads n bytes and the zeros up to the next multiple of eight.
func (r *Reader) padded(n int) ([]byte, error) {
	end := r.offset + int64(n)
	b, err := r.take(n + int(-end&7))
	if err != nil {
		return nil, err
	}
	for _, c := range b[n:] {
		if c != 0 {
			return nil, &FormatError{end, "the padding is not zero"}
		}
	}
	return b[:n], nil
}

// take returns the next n bytes, which are valid until something else is read.
func (r *Reader) take(n int) ([]byte, error) {
	b, err := r.r.Peek(n)
	if errors.Is(err, io.EOF) {
		return nil, &FormatError{r.offset + int64(len(b)), "the archive is truncated"}
	}
	if err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	_, _ = r.r.Discard(n) // they are there
	r.offset += int64(n)
	return b, nil
}
