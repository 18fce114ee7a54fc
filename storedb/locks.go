package storedb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/nar/tree"
)

// All locks are those of flock(2), as Nix's are. They belong to open files: two
// imports of one process exclude each other as two processes do, and the kernel
// releases them when a process dies.

// A lock that somebody else holds is tried again and again, less and less often.
const (
	firstLockPoll = time.Millisecond
	lastLockPoll  = 50 * time.Millisecond
)

// waitNotice is how long a lock is waited for until that is reported.
const waitNotice = time.Second

// patience waits for what others hold, until its context ends.
type patience struct {
	report func(what string) // called once for each wait that takes long
}

// wait calls try until it succeeds or fails. what is being waited for.
func (p patience) wait(ctx context.Context, what string, try func() (bool, error)) error {
	start, reported := time.Now(), false
	for poll := firstLockPoll; ; poll = min(2*poll, lastLockPoll) {
		ok, err := try()
		if ok || err != nil {
			return err
		}
		if !reported && time.Since(start) >= waitNotice {
			reported = true
			p.report(what)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-time.After(poll):
		}
	}
}

// tryLock takes a lock on the open file fd unless others hold one that excludes
// it. It replaces the lock that fd has.
func tryLock(fd, how int) (bool, error) {
	for {
		err := unix.Flock(fd, how|unix.LOCK_NB)
		switch err {
		case nil:
			return true, nil
		case unix.EWOULDBLOCK:
			return false, nil
		case unix.EINTR:
		default:
			return false, os.NewSyscallError("flock", err)
		}
	}
}

// isCurrent says whether f is still what the file system has at path: a file may
// be removed by those who held its lock before.
func isCurrent(f *os.File, path string) (bool, error) {
	locked, err := f.Stat()
	if err != nil {
		return false, err
	}
	found, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(locked, found), err
}

// pathLocks are the locks that Nix too takes on store paths while it makes them:
// each on a file beside the path. Whoever removes such a file makes it longer, so
// that those who have opened it before see that it is no longer the one to lock.
type pathLocks struct {
	patience
	store int // open directory
	held  []pathLock
}

type pathLock struct {
	fd   int
	name string
}

// acquire locks the store paths with the given base names. They must be sorted,
// and nothing be locked yet: whoever takes several locks takes them in that
// order, and so nobody waits for somebody who waits for him.
func (l *pathLocks) acquire(ctx context.Context, bases []string) error {
	if err := checkOpenFiles(len(bases)); err != nil {
		return err
	}
	for _, base := range bases {
		lock := pathLock{name: base + ".lock"}
		err := l.wait(ctx, "the lock of "+StoreDir+"/"+base, func() (ok bool, err error) {
			lock.fd, ok, err = lockPath(l.store, lock.name)
			return ok, err
		})
		if err != nil {
			return fmt.Errorf("lock store paths: %w", err)
		}
		l.held = append(l.held, lock)
	}
	return nil
}

// lockPath opens and locks a lock file, unless somebody else holds the lock or
// has just removed the file.
func lockPath(store int, name string) (fd int, ok bool, err error) {
	fd, err = tree.Open(store, name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fd, false, &os.PathError{Op: "open", Path: name, Err: err}
	}
	var st unix.Stat_t
	ok, err = tryLock(fd, unix.LOCK_EX)
	if ok {
		err = unix.Fstat(fd, &st)
		ok = err == nil && st.Size == 0
	}
	if !ok {
		tree.CloseRead(fd)
	}
	return fd, ok, err
}

// release removes the lock files, and with them the locks.
func (l *pathLocks) release() error {
	var first error
	for _, lock := range l.held {
		err := unix.Unlinkat(l.store, lock.name, 0)
		if err == nil {
			err = unix.Ftruncate(lock.fd, 1) // Nix writes a "d", but the disk may be full
		}
		if err != nil && first == nil {
			first = &os.PathError{Op: "remove lock", Path: lock.name, Err: err}
		}
		tree.CloseRead(lock.fd)
	}
	l.held = nil
	return first
}

// openFilesReserve is how many files are open besides locks: the directories
// that are being copied, above all.
const openFilesReserve = 512

// checkOpenFiles makes sure that n locks can be held at once. The Go runtime has
// already raised the limit as far as this process may.
func checkOpenFiles(n int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("lock store paths: %w", os.NewSyscallError("getrlimit", err))
	}
	if need := uint64(n) + openFilesReserve; limit.Cur < need {
		return fmt.Errorf("lock %d store paths: a process may have only %d files open\n"+
			"hint: the store is in use, so that each new path needs a lock: allow %d open files ('ulimit -n', LimitNOFILE=), or import while nobody uses the store",
			n, limit.Cur, need)
	}
	return nil
}
