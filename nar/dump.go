package nar

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"vm-prebuild/nar/tree"
)

// Dump writes the archive of the file, directory or symbolic link at path to w.
// It equals `nix-store --dump path` byte for byte. A symbolic link is archived
// itself, never followed; a file that is none of the three kinds, and one that
// shrinks while it is read, is an error.
func Dump(w io.Writer, path string) error {
	return dump(w, unix.AT_FDCWD, path, path, nil, nil)
}

// DumpAt is Dump of name in the open directory dir.
func DumpAt(w io.Writer, dir *os.File, name string) error {
	defer runtime.KeepAlive(dir)
	return dump(w, int(dir.Fd()), name, dir.Name()+"/"+name, nil, nil)
}

// DumpVisit is DumpAt and calls visit with the state of everything that is
// archived, a directory before what is in it. names lead there from the root, and
// must not be kept.
func DumpVisit(w io.Writer, dir *os.File, name string, visit func(names []string, st *unix.Stat_t)) error {
	defer runtime.KeepAlive(dir)
	return dump(w, int(dir.Fd()), name, dir.Name()+"/"+name, nil, visit)
}

// DumpListing is Dump and returns the listing of the archive, too.
func DumpListing(w io.Writer, path string) (*Listing, error) {
	l := &Listing{}
	if err := dump(w, unix.AT_FDCWD, path, path, &l.Root, nil); err != nil {
		return nil, err
	}
	return l, nil
}

// Hash returns the SHA-256 digest of the archive of path and its length in
// bytes. It ends early with ctx's error.
func Hash(ctx context.Context, path string) (digest [sha256.Size]byte, narSize int64, err error) {
	h := sha256.New()
	c := &counter{ctx: ctx, w: h}
	if err := Dump(c, path); err != nil {
		return digest, 0, err
	}
	h.Sum(digest[:0])
	return digest, c.n, nil
}

// counter counts what passes through it and fails once its context has ended.
type counter struct {
	ctx context.Context
	w   io.Writer
	n   int64
}

func (c *counter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// dumper writes one archive. Tokens are written without checks: err is looked at
// once for each entry and each piece of contents.
type dumper struct {
	w       io.Writer
	buf     []byte // not yet written to w
	written int64  // bytes before those in buf
	err     error  // of w; nothing more is written to it
	root    string // path of the root, for messages
	names   []string
	visit   func(names []string, st *unix.Stat_t) // nil if nobody wants to know
}

// Most store paths are small, and making a buffer for each would cost more than
// reading it.
var dumpBuffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// dump archives name in the open directory dir, describes it in list unless that
// is nil, and calls visit likewise. path is for messages.
func dump(w io.Writer, dir int, name, path string, list *Node, visit func([]string, *unix.Stat_t)) error {
	buffer := dumpBuffers.Get().(*[bufferSize]byte)
	defer dumpBuffers.Put(buffer)
	d := dumper{w: w, buf: buffer[:0], root: path, visit: visit}
	d.strings(magic)
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return d.pathError("stat", err)
	}
	if err := d.node(dir, name, st.Mode&unix.S_IFMT, list); err != nil {
		return err
	}
	d.flush()
	return d.writeError()
}

// node archives name in the directory dir, which has the given type.
func (d *dumper) node(dir int, name string, fileType uint32, list *Node) error {
	d.strings("(", "type")
	var err error
	switch fileType {
	case unix.S_IFREG:
		err = d.regular(dir, name, list)
	case unix.S_IFDIR:
		err = d.directory(dir, name, list)
	case unix.S_IFLNK:
		err = d.symlink(dir, name, list)
	default:
		err = d.pathError("archive", errors.New("not a regular file, directory or symbolic link"))
	}
	d.strings(")")
	return err
}

func (d *dumper) regular(dir int, name string, list *Node) error {
	fd, st, err := d.open(dir, name, unix.S_IFREG)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	d.strings("regular")
	executable := st.Mode&unix.S_IXUSR != 0
	if executable {
		d.strings("executable", "")
	}
	d.strings("contents")
	d.length(st.Size)
	if list != nil {
		*list = Node{Type: TypeRegular, Size: st.Size, Executable: executable, NarOffset: d.written + int64(len(d.buf))}
	}
	for left := st.Size; left > 0; {
		// A small file is read at once, a large one in full buffers.
		n := int(min(left, bufferSize))
		d.room(n)
		n, err := unix.Read(fd, d.buf[len(d.buf):len(d.buf)+n])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return d.pathError("read", err)
		case n == 0:
			return d.pathError("archive", fmt.Errorf("shrank from %d to %d bytes while it was read", st.Size, st.Size-left))
		case d.err != nil:
			return d.writeError()
		}
		d.buf = d.buf[:len(d.buf)+n]
		left -= int64(n)
	}
	d.pad(st.Size)
	return nil
}

func (d *dumper) directory(dir int, name string, list *Node) error {
	if len(d.names) == tree.MaxDepth {
		return d.pathError("archive", fmt.Errorf("nested deeper than %d directories", tree.MaxDepth))
	}
	fd, _, err := d.open(dir, name, unix.S_IFDIR)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	entries, err := readDir(fd)
	if err != nil {
		return d.pathError("read", err)
	}
	d.strings("directory")
	if list != nil {
		*list = Node{Type: TypeDirectory, Entries: make(map[string]*Node, len(entries))}
	}
	for _, e := range entries {
		d.strings("entry", "(", "name", e.name, "node")
		var sub *Node
		if list != nil {
			sub = &Node{}
			list.Entries[e.name] = sub
		}
		d.names = append(d.names, e.name)
		if err := d.node(fd, e.name, e.fileType, sub); err != nil {
			return err
		}
		d.names = d.names[:len(d.names)-1]
		d.strings(")")
		if d.err != nil {
			return d.writeError()
		}
	}
	return nil
}

func (d *dumper) symlink(dir int, name string, list *Node) error {
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, target)
	if err != nil {
		return d.pathError("readlink", err)
	}
	if d.visit != nil {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return d.pathError("stat", err)
		}
		d.visit(d.names, &st)
	}
	d.strings("symlink", "target", string(target[:n]))
	if list != nil {
		*list = Node{Type: TypeSymlink, Target: string(target[:n])}
	}
	return nil
}

// open opens name in dir and makes sure that it still has the type it had when
// its directory was read: the tree may be one that somebody else is changing.
func (d *dumper) open(dir int, name string, fileType uint32) (int, *unix.Stat_t, error) {
	fd, err := tree.Open(dir, name, tree.OpenFlags, 0)
	if err != nil {
		return -1, nil, d.pathError("open", err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != fileType {
		err = errors.New("changed its type while it was read")
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, d.pathError("archive", err)
	}
	if d.visit != nil {
		d.visit(d.names, &st)
	}
	return fd, &st, nil
}

// strings writes the tokens ss.
func (d *dumper) strings(ss ...string) {
	for _, s := range ss {
		d.room(8 + len(s))
		d.length(int64(len(s)))
		d.buf = append(d.buf, s...)
		d.pad(int64(len(s)))
	}
}

func (d *dumper) length(n int64) {
	d.room(8)
	d.buf = binary.LittleEndian.AppendUint64(d.buf, uint64(n))
}

// pad fills up to a multiple of eight after n bytes.
func (d *dumper) pad(n int64) {
	d.room(8)
	var zeros [8]byte
	d.buf = append(d.buf, zeros[:-n&7]...)
}

// room makes room for n bytes in the buffer.
func (d *dumper) room(n int) {
	if cap(d.buf)-len(d.buf) < n {
		d.flush()
	}
}

func (d *dumper) flush() {
	if d.err == nil {
		_, d.err = d.w.Write(d.buf)
	}
	d.written += int64(len(d.buf))
	d.buf = d.buf[:0]
}

func (d *dumper) writeError() error {
	if d.err == nil {
		return nil
	}
	return fmt.Errorf("write archive of %s: %w", d.root, d.err)
}

// pathError is about the file that is being archived.
func (d *dumper) pathError(op string, err error) error {
	return &fs.PathError{Op: op, Path: strings.Join(append([]string{d.root}, d.names...), "/"), Err: err}
}
