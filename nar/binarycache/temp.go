package binarycache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// tempPattern is what directories of unfinished files are called. Nix takes no
// notice of them.
const tempPattern = "tmp-vm-prebuild-"

// tempDir is a directory in a cache in which files are made that get their
// places by renaming. It is locked, so that one which a killed process has left
// can be told from one in use.
type tempDir struct {
	path string
	lock *os.File // the directory
	next atomic.Int64
}

// newTempDir makes one, having removed those that nobody uses any more.
func newTempDir(ctx context.Context, cache string) (*tempDir, error) {
	removeStale(cache)
	for ctx.Err() == nil {
		path, err := os.MkdirTemp(cache, tempPattern)
		if err != nil {
			return nil, fmt.Errorf("write binary cache: %w", err)
		}
		t, err := lockTempDir(path)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("write binary cache: %w", err), os.RemoveAll(path))
		}
		if t != nil {
			return t, nil
		}
	}
	return nil, ctx.Err()
}

// lockTempDir locks a new directory; it returns nil if somebody has taken it for
// an abandoned one before that.
func lockTempDir(path string) (*tempDir, error) {
	lock, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	switch err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		lock.Close()
		return nil, nil
	case err != nil:
		lock.Close()
		return nil, err
	}
	if !exists(path) { // it was removed before it was locked
		lock.Close()
		return nil, nil
	}
	return &tempDir{path: path, lock: lock}, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// removeStale removes the directories of ours that nobody holds the lock of. What
// cannot be removed stays: it is in nobody's way.
func removeStale(cache string) {
	stale, err := fs.Glob(os.DirFS(cache), tempPattern+"*")
	if err != nil {
		return
	}
	for _, name := range stale {
		path := filepath.Join(cache, name)
		// It may be anything: what waits for a writer, or leads elsewhere.
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		var info unix.Stat_t
		if unix.Fstat(fd, &info) == nil && int(info.Uid) == os.Geteuid() && unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(path) // the next export tries again
		}
		_ = unix.Close(fd) // nothing has been written
	}
}

// create makes a file.
func (t *tempDir) create() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(t.path, strconv.FormatInt(t.next.Add(1), 10)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fmt.Errorf("write binary cache: %w", err)
	}
	return f, nil
}

// writeFile makes a file and moves it to path.
func (t *tempDir) writeFile(path string, text []byte) error {
	f, err := t.create()
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write binary cache: %w", err)
	}
	return nil
}

// remove removes the directory and what is left in it.
func (t *tempDir) remove() error {
	err := os.RemoveAll(t.path)
	if err = errors.Join(err, t.lock.Close()); err != nil {
		return fmt.Errorf("write binary cache: %w", err)
	}
	return nil
}
