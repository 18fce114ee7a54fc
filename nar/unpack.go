package nar

import (
	"bufio"
	"context"
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

// Most store paths are small, and making a buffer for each would cost more than
// unpacking it.
var unpackBuffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, bufferSize) }}

// Unpack makes what the archive r holds as name in the open directory dir, where
// there must be nothing of that name, with the metadata of files in a store:
// mode 0444 or 0555 and modification time 1. The archive must be all of r;
// callers who know its size give Unpack a reader that ends there, so that an
// archive which claims more, or decompresses to more, does not fill the disk.
//
// Nothing outside dir is written to, even if somebody else exchanges what has
// been made for symbolic links meanwhile. On error, what has been made is removed.
// Errors in the archive are a *FormatError; ctx ends it between two entries or
// pieces of a file.
func Unpack(ctx context.Context, r io.Reader, dir *os.File, name string) error {
	defer runtime.KeepAlive(dir)
	if err := checkName(name); err != nil {
		return fmt.Errorf("unpack archive: %w", err)
	}
	buffer := unpackBuffers.Get().(*bufio.Reader)
	buffer.Reset(r)
	defer func() {
		buffer.Reset(nil)
		unpackBuffers.Put(buffer)
	}()
	u := unpacker{r: Reader{r: buffer}, dir: int(dir.Fd()), name: name}
	err := u.run(ctx)
	for _, d := range u.open {
		unix.Close(d.fd)
	}
	if err != nil && u.made {
		if removeErr := tree.Remove(u.dir, name); removeErr != nil {
			err = errors.Join(err, fmt.Errorf("unfinished: %w", removeErr))
		}
	}
	return err
}

type unpacker struct {
	r    Reader
	dir  int
	name string // of the root in dir
	made bool   // the root, so that it is ours to remove
	open []openDir

	// Whether a file has come out with the mode it was created with, which
	// depends on the umask and on the access control list that dir hands down.
	regularKept, executableKept modeKept
}

type openDir struct {
	fd   int
	name string
}

type modeKept int

const (
	notKnown modeKept = iota
	kept
	changed
)

func (u *unpacker) run(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := u.r.Next()
		end := errors.Is(err, io.EOF)
		if err != nil && !end {
			return err
		}
		for len(u.open) > e.Depth {
			if err := u.closeDir(); err != nil {
				return err
			}
		}
		if end {
			return nil
		}
		dir, name := u.dir, u.name
		if e.Depth > 0 {
			dir, name = u.open[e.Depth-1].fd, e.Name
		}
		switch e.Type {
		case TypeDirectory:
			err = u.directory(dir, name)
		case TypeRegular:
			err = u.regular(ctx, dir, name, e.Executable)
		case TypeSymlink:
			err = u.symlink(dir, name, e.Target)
		}
		if err != nil {
			return err
		}
	}
}

func (u *unpacker) directory(dir int, name string) error {
	// It is nobody else's business before it is finished.
	if err := unix.Mkdirat(dir, name, 0o700); err != nil {
		return u.pathError("mkdir", name, err)
	}
	u.made = true
	fd, err := tree.OpenDir(dir, name)
	if err != nil {
		return u.pathError("open new", name, err)
	}
	u.open = append(u.open, openDir{fd, name})
	return nil
}

// closeDir finishes the innermost open directory, which gets its metadata last
// because each new entry changes its time and needs it to be writable.
func (u *unpacker) closeDir() error {
	d := u.open[len(u.open)-1]
	u.open = u.open[:len(u.open)-1]
	defer unix.Close(d.fd)
	if err := unix.Fchmod(d.fd, tree.ModeExecutable); err != nil {
		return u.pathError("chmod", d.name, err)
	}
	if err := tree.SetTime(d.fd); err != nil {
		return u.pathError("set time of", d.name, err)
	}
	return nil
}

func (u *unpacker) symlink(dir int, name, target string) error {
	if err := unix.Symlinkat(target, dir, name); err != nil {
		return u.pathError("symlink", name, err)
	}
	u.made = true
	if err := tree.SetTimeOfLink(dir, name); err != nil {
		return u.pathError("set time of", name, err)
	}
	return nil
}

func (u *unpacker) regular(ctx context.Context, dir int, name string, executable bool) error {
	mode, known := uint32(tree.ModeRegular), &u.regularKept
	if executable {
		mode, known = tree.ModeExecutable, &u.executableKept
	}
	fd, err := tree.Open(dir, name, tree.CreateFlags, mode)
	if err != nil {
		return u.pathError("create", name, err)
	}
	u.made = true
	err = u.contents(ctx, fd, name)
	if err == nil {
		err = u.metadata(fd, name, mode, known)
	}
	// A network file system reports a full disk here.
	if closeErr := unix.Close(fd); err == nil && closeErr != nil {
		err = u.pathError("close", name, closeErr)
	}
	return err
}

func (u *unpacker) contents(ctx context.Context, fd int, name string) error {
	for {
		p, err := u.r.chunk(bufferSize)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if err := tree.WriteAll(fd, p); err != nil {
			return u.pathError("write", name, err)
		}
	}
}

func (u *unpacker) metadata(fd int, name string, mode uint32, known *modeKept) error {
	if *known == notKnown {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return u.pathError("stat", name, err)
		}
		*known = changed
		if st.Mode&^unix.S_IFMT == mode {
			*known = kept
		}
	}
	if *known == changed {
		if err := unix.Fchmod(fd, mode); err != nil {
			return u.pathError("chmod", name, err)
		}
	}
	if err := tree.SetTime(fd); err != nil {
		return u.pathError("set time of", name, err)
	}
	return nil
}

// pathError is about name in the innermost open directory.
func (u *unpacker) pathError(op, name string, err error) error {
	var path strings.Builder
	for _, d := range u.open {
		path.WriteString(d.name + "/")
	}
	path.WriteString(name)
	return &fs.PathError{Op: op, Path: path.String(), Err: err}
}
