package nar

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Trees are read and made with directory file descriptors and one name at a
// time, no name being followed if it is a symbolic link: whatever somebody
// changes in a tree meanwhile, nothing outside it is reached. Files are plain
// descriptors, because an os.File costs as many system calls again as a small
// file needs.

// openFlags are for everything that is opened to be read. With O_NONBLOCK,
// opening a FIFO that has taken the place of a file returns.
const openFlags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC

// openAt opens name in the directory dir. Network file systems let a signal
// interrupt it, and the Go runtime sends itself signals.
func openAt(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		p = p[max(n, 0):]
	}
	return nil
}

// canonicalTimes are the modification time of everything in a store, and an
// access time that is left as it is.
func canonicalTimes() [2]unix.Timespec {
	return [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: mtime}}
}

// setTime gives the open file fd its time. This is futimens, which package unix
// lacks.
func setTime(fd int) error {
	times := canonicalTimes()
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// setLinkTime gives the symbolic link name in the directory dir its time.
func setLinkTime(dir int, name string) error {
	times := canonicalTimes()
	return unix.UtimesNanoAt(dir, name, times[:], unix.AT_SYMLINK_NOFOLLOW)
}

// dirent is an entry of a directory and its type, one of unix.S_IF….
type dirent struct {
	name     string
	fileType uint32
}

// readDir returns the entries of the open directory dir, sorted bytewise.
func readDir(dir int) ([]dirent, error) {
	var entries []dirent
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.ReadDirent(dir, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		// A linux_dirent64: inode and offset, the length of the record, the
		// type, and the name up to a NUL.
		for b := buf[:n]; len(b) > 0; {
			length := binary.NativeEndian.Uint16(b[16:])
			name, _, _ := bytes.Cut(b[19:length], []byte{0})
			if s := string(name); s != "." && s != ".." {
				entries = append(entries, dirent{name: s, fileType: uint32(b[18]) << 12})
			}
			b = b[length:]
		}
	}
	for i, e := range entries {
		if e.fileType == unix.DT_UNKNOWN { // some file systems do not tell
			var st unix.Stat_t
			if err := unix.Fstatat(dir, e.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return nil, &fs.PathError{Op: "stat", Path: e.name, Err: err}
			}
			entries[i].fileType = st.Mode & unix.S_IFMT
		}
	}
	slices.SortFunc(entries, func(a, b dirent) int { return strings.Compare(a.name, b.name) })
	return entries, nil
}

// removeTree removes name and all below it from the directory dir.
func removeTree(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	fd, err := openAt(dir, name, openFlags|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// Directories of a store are read-only, even for their owner.
	if err := unix.Fchmod(fd, 0o700); err != nil {
		return err
	}
	entries, err := readDir(fd)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := removeTree(fd, e.name); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}
