package storedb

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Nix's garbage collector and those who need paths that nothing refers to yet
// agree in this way (src/libstore/gc.cc). Each process has a file of temporary
// roots below nix/var/nix/temproots, locked while the process lives. The
// collector holds gc.lock while it works and has read those files before it
// removes anything. Whoever adds roots and cannot get gc.lock, shared, tells the
// running collector through its socket and waits for the answer.
const (
	tempRootsDir = stateDir + "/temproots"
	gcLockFile   = stateDir + "/gc.lock"
	gcSocketDir  = stateDir + "/gc-socket"
)

// gcAnswerTime is how long the collector is given to answer. Then it is asked
// again: it may be stopped, or have left its socket to a process that is not one.
const gcAnswerTime = 10 * time.Second

// tempRoots keeps store paths, valid or not, from Nix's garbage collector.
type tempRoots struct {
	patience
	root       string        // of the store
	file       *os.File      // locked
	gc         *os.File      // the collector's lock
	answerTime time.Duration // of the collector
}

// openTempRoots makes a file of temporary roots and opens the collector's lock,
// of which it says whether it has made it.
func openTempRoots(root string, p patience) (r *tempRoots, madeLock bool, err error) {
	r = &tempRoots{patience: p, root: root, answerTime: gcAnswerTime}
	if r.gc, madeLock, err = openLockFile(filepath.Join(root, gcLockFile)); err == nil {
		err = r.open()
	}
	if err != nil {
		return nil, madeLock, errors.Join(fmt.Errorf("make temporary roots: %w", err), r.close())
	}
	return r, madeLock, nil
}

// open makes the file. Nix takes its name for the number of a process, which it
// shows, and removes a file of its own number as one that a predecessor has
// left. Processes in other namespaces may have the same number as this one, and
// this one may run several imports; so it gets a number that no process has.
func (r *tempRoots) open() error {
	const maxPID = 1 << 22
	for {
		name := filepath.Join(r.root, tempRootsDir, strconv.Itoa(maxPID+rand.IntN(1<<30)))
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		// A collector that has found the file unlocked removes it and writes to it.
		ok, err := tryLock(int(f.Fd()), unix.LOCK_EX)
		if err != nil {
			return errors.Join(err, f.Close(), os.Remove(name))
		}
		if info, err := f.Stat(); ok && err == nil && info.Size() == 0 {
			r.file = f
			return nil
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
}

// add protects store paths. When it has returned, those that exist stay.
func (r *tempRoots) add(ctx context.Context, paths ...string) error {
	if _, err := r.file.WriteString(strings.Join(paths, "\x00") + "\x00"); err != nil {
		return fmt.Errorf("add temporary roots: %w", err)
	}
	return r.announce(ctx, paths)
}

// announce makes sure that the collector, if it is running, knows of the roots
// that paths now have, temporary or not: it may have read them before.
func (r *tempRoots) announce(ctx context.Context, paths []string) error {
	err := r.wait(ctx, "the garbage collector", func() (bool, error) {
		ok, err := tryLock(int(r.gc.Fd()), unix.LOCK_SH)
		if ok {
			return tryLock(int(r.gc.Fd()), unix.LOCK_UN)
		}
		if err != nil {
			return false, err
		}
		return r.tell(ctx, paths)
	})
	if err != nil {
		return fmt.Errorf("announce roots: %w", err)
	}
	return nil
}

// tell sends paths to the running collector and waits for its answers. It
// returns false if there is none: it has ended, has not opened its socket yet,
// is busy, or is that of a Nix that does not have one.
func (r *tempRoots) tell(ctx context.Context, paths []string) (bool, error) {
	err := r.converse(ctx, paths)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	for _, gone := range []error{fs.ErrNotExist, syscall.ECONNREFUSED, syscall.EAGAIN, syscall.EPIPE, syscall.ECONNRESET, io.EOF, os.ErrDeadlineExceeded} {
		if errors.Is(err, gone) {
			return false, nil
		}
	}
	return err == nil, err
}

// converse sends lines of one path and reads a "1" for each. There are never
// more of them unanswered than the sockets can hold.
func (r *tempRoots) converse(ctx context.Context, paths []string) error {
	dir, err := os.Open(filepath.Join(r.root, gcSocketDir))
	if err != nil {
		return err
	}
	defer dir.Close()
	// The path of a socket has at most 107 bytes.
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/socket", dir.Fd()))
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	answers := bufio.NewReader(conn)
	for len(paths) > 0 {
		n := min(len(paths), 64)
		if err := conn.SetDeadline(time.Now().Add(r.answerTime)); err != nil {
			return err
		}
		if _, err := io.WriteString(conn, strings.Join(paths[:n], "\n")+"\n"); err != nil {
			return err
		}
		for range n {
			answer, err := answers.ReadByte()
			if err != nil {
				return err
			}
			if answer != '1' {
				return fmt.Errorf("the garbage collector answers %q instead of \"1\"", answer)
			}
		}
		paths = paths[n:]
	}
	return nil
}

// close gives up the roots.
func (r *tempRoots) close() error {
	var errs []error
	if r.file != nil {
		errs = append(errs, os.Remove(r.file.Name()), r.file.Close())
	}
	if r.gc != nil {
		errs = append(errs, r.gc.Close())
	}
	return errors.Join(errs...)
}
