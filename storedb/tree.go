package storedb

import (
	"errors"
	"fmt"
	"io/fs"

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
	buf := make([]byte, 16<<10)
	var names []string
	for {
		n, err := unix.ReadDirent(dir, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return names, err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
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
	var errs []error
	for _, n := range names {
		if err := removeTree(fd, n); err != nil {
			errs = append(errs, fmt.Errorf("in %s: %w", name, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}
