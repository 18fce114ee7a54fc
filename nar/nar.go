// Package nar writes Nix archives (NAR), the canonical serialisation of a file
// tree that Nix hashes store paths by. Dump is the entry point; Hash gives the
// two figures the store database keeps of each path: narHash and narSize.
//
// The format is the one of the Nix manual, "Nix Archive (NAR) format": a
// sequence of strings, each a little-endian 64-bit length, the bytes, and zero
// bytes up to the next multiple of eight. An archive knows only regular files
// (with an executable bit), directories (entries sorted bytewise) and symbolic
// links; owner, other mode bits and times are not part of it.
package nar

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// magic is the first string of every archive.
const magic = "nix-archive-1"

// maxDepth bounds the nesting of directories, and with it the file descriptors
// and the stack a dump needs. Nix itself takes no more than 64 levels since
// 2026; stores filled before that may hold deeper trees.
const maxDepth = 256

// bufferSize is large enough that a whole small file, and most of the tokens
// around it, go out in one write.
const bufferSize = 256 << 10

// Dump writes the archive of the file, directory or symbolic link at path to w.
// It equals `nix-store --dump path` byte for byte. A symbolic link is archived
// itself, never followed; a file that is none of the three kinds, and one that
// shrinks while it is read, is an error.
func Dump(w io.Writer, path string) error {
	d := dumper{w: bufio.NewWriterSize(w, bufferSize)}
	d.strings(magic)
	if err := d.node(unix.AT_FDCWD, path, path, 0); err != nil {
		return err
	}
	if err := d.w.Flush(); err != nil {
		return fmt.Errorf("write archive of %s: %w", path, err)
	}
	return nil
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

// dumper writes one archive. A failed write is kept by w and reported by the
// next large write or by Flush, so tokens are written without checks.
type dumper struct {
	w *bufio.Writer
}

// node archives name in the directory dir; path is for messages.
func (d *dumper) node(dir int, name, path string, depth int) error {
	if depth > maxDepth {
		return &fs.PathError{Op: "archive", Path: path, Err: fmt.Errorf("nested deeper than %d directories", maxDepth)}
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	d.strings("(", "type")
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = d.regular(dir, name, path)
	case unix.S_IFDIR:
		err = d.directory(dir, name, path, depth)
	case unix.S_IFLNK:
		err = d.symlink(dir, name, path)
	default:
		err = &fs.PathError{Op: "archive", Path: path, Err: errType}
	}
	if err != nil {
		return err
	}
	d.strings(")")
	return nil
}

var errType = errors.New("not a regular file, directory or symbolic link")

func (d *dumper) regular(dir int, name, path string) error {
	f, st, err := open(dir, name, path, unix.S_IFREG)
	if err != nil {
		return err
	}
	defer f.Close()
	d.strings("regular")
	if st.Mode&unix.S_IXUSR != 0 {
		d.strings("executable", "")
	}
	d.strings("contents")
	d.length(st.Size)
	if n, err := io.CopyN(d.w, f, st.Size); errors.Is(err, io.EOF) {
		return &fs.PathError{Op: "archive", Path: path, Err: fmt.Errorf("shrank from %d to %d bytes while it was read", st.Size, n)}
	} else if err != nil {
		return fmt.Errorf("archive %s: %w", path, err)
	}
	d.pad(st.Size)
	return nil
}

func (d *dumper) directory(dir int, name, path string, depth int) error {
	f, _, err := open(dir, name, path, unix.S_IFDIR)
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("archive %s: %w", path, err)
	}
	slices.Sort(names)
	d.strings("directory")
	for _, n := range names {
		d.strings("entry", "(", "name", n, "node")
		if err := d.node(int(f.Fd()), n, path+"/"+n, depth+1); err != nil {
			return err
		}
		d.strings(")")
	}
	return nil
}

func (d *dumper) symlink(dir int, name, path string) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return &fs.PathError{Op: "readlink", Path: path, Err: err}
	}
	d.strings("symlink", "target", string(buf[:n]))
	return nil
}

// open opens name in dir and makes sure that it still has the type it had when
// it was looked at: the tree may be one that somebody else is changing. It
// does not block on a FIFO that has taken the place of a file.
func open(dir int, name, path string, fileType uint32) (*os.File, unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, st, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return nil, st, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != fileType {
		_ = unix.Close(fd)
		return nil, st, &fs.PathError{Op: "archive", Path: path, Err: errors.New("changed its type while it was read")}
	}
	return os.NewFile(uintptr(fd), path), st, nil
}

// strings writes the tokens ss.
func (d *dumper) strings(ss ...string) {
	for _, s := range ss {
		d.length(int64(len(s)))
		_, _ = d.w.WriteString(s)
		d.pad(int64(len(s)))
	}
}

func (d *dumper) length(n int64) {
	_, _ = d.w.Write(binary.LittleEndian.AppendUint64(d.w.AvailableBuffer(), uint64(n)))
}

// pad fills up to a multiple of eight after n bytes.
func (d *dumper) pad(n int64) {
	var zeros [8]byte
	_, _ = d.w.Write(zeros[:-n&7])
}
