// Package tree reads, makes and removes trees of files in Nix stores, with
// directory file descriptors and one name at a time. No name is followed if it is
// a symbolic link: whatever somebody changes in a tree meanwhile, nothing outside
// it is reached. Files are plain descriptors, because an os.File costs as many
// system calls again as a small file needs.
//
// [EachEntry] is how trees are walked. Errors are those of the system calls; that
// of [Remove] says which file it is about.
package tree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Metadata that Nix gives everything in a store (src/libstore/local-store.cc,
// canonicalisePathMetaData). Only whether a file is executable is covered by a
// path's hash.
const (
	ModeExecutable = 0o555 // also that of directories
	ModeRegular    = 0o444
	Mtime          = 1 // seconds after the epoch
)

// MaxDepth bounds the nesting of directories, and with it the file descriptors
// and the stack that a walk takes. Nix itself takes no more than 64 levels since
// 2026; stores filled before that may hold deeper trees.
const MaxDepth = 256

// OpenFlags are for everything that is opened to be read. With O_NONBLOCK,
// opening a FIFO that has taken the place of a file returns.
const OpenFlags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC

// CreateFlags are for files that are made.
const CreateFlags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC

// Open opens name in the directory dir. Network file systems let a signal
// interrupt it, and the Go runtime sends itself signals.
func Open(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// OpenDir opens the directory name in the directory dir.
func OpenDir(dir int, name string) (int, error) {
	return Open(dir, name, OpenFlags|unix.O_DIRECTORY, 0)
}

// CloseRead closes descriptors that nothing has been written to, so that there
// is nothing to report.
func CloseRead(fds ...int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// WriteAll writes all of p.
func WriteAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		p = p[max(n, 0):]
	}
	return nil
}

// EachEntry calls f with the names of what is in the open directory dir, in no
// order, and their kinds as in dirent(5), DT_UNKNOWN if only opening it would tell.
// The directory has not been read before. The buffer should have some KiB.
//
// Of each entry getdents64(2) returns the inode and the offset of the next one,
// eight bytes each, the record's length, two bytes, the kind, one, and the name,
// which a zero byte ends.
func EachEntry(dir int, buf []byte, f func(name string, kind uint8)) error {
	for {
		n, err := unix.Getdents(dir, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		text := string(buf[:n]) // that all names are part of, instead of a copy of each
		for at := 0; at < n; {
			end := at + int(binary.NativeEndian.Uint16(buf[at+16:]))
			name, _, _ := strings.Cut(text[at+19:end], "\x00")
			if name != "." && name != ".." {
				f(name, buf[at+18])
			}
			at = end
		}
	}
}

// EachName calls f with each name in the open directory dir, in no order.
func EachName(dir int, f func(name string)) error {
	if _, err := unix.Seek(dir, 0, unix.SEEK_SET); err != nil {
		return err
	}
	return EachEntry(dir, make([]byte, 64<<10), func(name string, _ uint8) { f(name) })
}

// Names returns the names in the open directory dir, in no order.
func Names(dir int) (names []string, err error) {
	err = EachName(dir, func(name string) { names = append(names, name) })
	return names, err
}

// SetTime gives an open file the modification time Mtime, and leaves its access
// time.
func SetTime(fd int) error {
	// With no name, the call is about the descriptor, which saves a look-up.
	return utimensat(fd, nil, 0)
}

// SetTimeOfLink is SetTime for a symbolic link, which cannot be opened.
func SetTimeOfLink(dir int, name string) error {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	return utimensat(dir, p, unix.AT_SYMLINK_NOFOLLOW)
}

func utimensat(dir int, name *byte, flags int) error {
	times := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: Mtime}}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(dir), uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&times)), uintptr(flags), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// Remove removes name and all below it from the directory dir. Removing what is
// not there succeeds.
func Remove(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	fd, err := OpenDir(dir, name)
	if errors.Is(err, unix.ENOENT) {
		return nil // somebody else is removing it, too
	}
	if err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	defer CloseRead(fd)
	// Directories of a store are read-only, even for their owner.
	if err := unix.Fchmod(fd, 0o700); err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	names, err := Names(fd)
	if err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	// What fails, on a read-only file system for instance, fails for all.
	var first error
	for _, n := range names {
		if err := Remove(fd, n); err != nil && first == nil {
			first = fmt.Errorf("in %s: %w", name, err)
		}
	}
	if first != nil {
		return first
	}
	if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}
