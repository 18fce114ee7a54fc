package storedb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Trees are walked with directory file descriptors and one name at a time, no
// name being followed if it is a symbolic link: whatever somebody changes in a
// tree meanwhile, nothing outside it is reached.

// openFlags are for everything that is opened to be read. With O_NONBLOCK,
// opening a FIFO returns.
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

// closeRead closes descriptors that nothing has been written to, so that there
// is nothing to report.
func closeRead(fds ...int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// readNames returns the names in the open directory dir, in no order.
func readNames(dir int) (names []string, err error) {
	err = eachName(dir, func(name string) { names = append(names, name) })
	return names, err
}

// eachName calls f with each name in the open directory dir, in no order.
func eachName(dir int, f func(name string)) error {
	if _, err := unix.Seek(dir, 0, unix.SEEK_SET); err != nil {
		return err
	}
	return eachEntry(dir, make([]byte, 64<<10), func(name string, _ uint8) { f(name) })
}

// readEntries returns what is in the open directory dir, in no order, using buf.
// The directory has not been read before.
func readEntries(dir int, buf []byte) (entries []entry, err error) {
	err = eachEntry(dir, buf, func(name string, kind uint8) {
		entries = append(entries, entry{from: name, to: name, kind: kind})
	})
	return entries, err
}

// eachEntry calls f with what getdents64(2) returns of the directory dir, using
// buf. Of each entry that is the inode and the offset of the next one, eight bytes
// each, the record's length, two bytes, the kind, one, and the name, which a zero
// byte ends.
func eachEntry(dir int, buf []byte, f func(name string, kind uint8)) error {
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

// setTime sets the canonical modification time of an open file, and leaves the
// access time.
func setTime(fd int) error {
	// With no name, the call is about the descriptor, which saves a look-up.
	return utimensat(fd, nil, 0)
}

// setTimeOfLink is setTime for a symbolic link, which cannot be opened.
func setTimeOfLink(dir int, name string) error {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	return utimensat(dir, p, unix.AT_SYMLINK_NOFOLLOW)
}

func utimensat(dir int, name *byte, flags int) error {
	times := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: mtime}}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(dir), uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&times)), uintptr(flags), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// umask is the process's, as far as the system tells: it can only be asked for
// by changing it, or of /proc. Unknown, it takes everything away.
func umask() uint32 {
	const unknown = 0o777
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return unknown
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "Umask:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(value), 8, 32)
			if err != nil {
				return unknown
			}
			return uint32(mask)
		}
	}
	return unknown
}

// removeTree removes name and all below it from the directory dir. Removing
// what is not there succeeds.
func removeTree(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	fd, err := openAt(dir, name, openFlags|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil // somebody else is removing it, too
	}
	if err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	defer closeRead(fd)
	// Directories of a store are read-only, even for their owner.
	if err := unix.Fchmod(fd, 0o700); err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	names, err := readNames(fd)
	if err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	// What fails, on a read-only file system for instance, fails for all.
	var first error
	for _, n := range names {
		if err := removeTree(fd, n); err != nil && first == nil {
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
