package vlan

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// longestName is the longest name that libvdeplug gives a socket in the
// directory, from its process id and a counter.
const longestName = ".4194304-00000"

// makeDir creates the directory of a switch, or takes over one that a killed
// process left, and returns its absolute path.
func makeDir(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if longest := filepath.Join(dir, longestName); len(longest) > maxSocket {
		return "", fmt.Errorf("socket path %s has %d bytes, the system allows %d"+
			"\nhint: set XDG_RUNTIME_DIR or TMPDIR to a directory with a shorter name", longest, len(longest), maxSocket)
	}
	err = os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return dir, takeOver(dir)
	}
	return dir, err
}

// takeOver empties a directory that nobody serves any more.
func takeOver(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(stat.Uid) != os.Geteuid() || info.Mode().Perm() != 0o700 {
		return fmt.Errorf("%s exists, and is not a directory with mode 0700 of this user", dir)
	}
	conn, err := net.Dial("unix", filepath.Join(dir, "ctl"))
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return removeSockets(dir)
	case err == nil:
		_ = conn.Close()
	case !errors.Is(err, syscall.EAGAIN): // which says that too many connections wait
		return err
	}
	return fmt.Errorf("%s is in use by another switch"+
		"\nhint: is another test running with the same XDG_RUNTIME_DIR or TMPDIR?", dir)
}

// removeDir removes the directory of a switch with all its sockets. Other files
// are not ours: they stay, with an error.
func removeDir(dir string) error {
	if err := removeSockets(dir); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func removeSockets(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Type() != fs.ModeSocket {
			continue
		}
		err := os.Remove(filepath.Join(dir, entry.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // clients remove theirs, too
			return err
		}
	}
	return nil
}
