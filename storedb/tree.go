package storedb

import (
	"bytes"
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
func readNames(dir int) ([]string, error) {
	if _, err := unix.Seek(dir, 0, unix.SEEK_SET); err != nil {
		return nil, err
	}
	entries, err := readEntries(dir, make([]byte, 16<<10))
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.from
	}
	return names, err
}

// readEntries returns what is in the open directory dir, in no order, using buf.
// The directory has not been read before.
func readEntries(dir int, buf []byte) ([]entry, error) {
	var entries []entry
	for {
		n, err := unix.Getdents(dir, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return entries, err
		}
		for records := buf[:n]; len(records) > 0; {
			var e entry
			e, records = nextEntry(records)
			if e.from != "." && e.from != ".." {
				entries = append(entries, e)
			}
		}
	}
}

// nextEntry takes the first entry from what getdents64(2) has returned: inode
// and offset of eight bytes each, the record's length of two, the kind, and the
// name, which a zero byte ends.
func nextEntry(records []byte) (e entry, rest []byte) {
	length := binary.NativeEndian.Uint16(records[16:])
	name, _, _ := bytes.Cut(records[19:length], []byte{0})
	e = entry{from: string(name), kind: records[18]}
	e.to = e.from
	return e, records[length:]
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
