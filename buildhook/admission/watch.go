package admission

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watch notices changes of tickets.
type watch struct {
	file    *os.File // nil if the kernel does not tell
	problem error    // why it does not
}

// newWatch asks the kernel to tell of changes in dir. It does that only for so many
// processes of a user, and more than these may wait.
func newWatch(dir string) *watch {
	file, err := inotify(dir)
	return &watch{file, err}
}

func inotify(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch the queue of tests: %w\nhint: see fs.inotify.max_user_instances", err)
	}
	// A ticket is removed, or begins to run; a process that has died closes it.
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_DELETE|unix.IN_CLOSE_WRITE|unix.IN_MODIFY|unix.IN_ONLYDIR); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch the queue of tests: %w\nhint: see fs.inotify.max_user_watches", err)
	}
	return os.NewFile(uintptr(fd), "inotify"), nil
}

func (w *watch) close() {
	if w.file != nil {
		w.file.Close()
	}
}

// Times between looks at the tickets. The kernel tells that a file is closed just
// before it releases the lock on it. That it tells is not relied upon.
const (
	settle = 5 * time.Millisecond
	atMost = time.Second
	blind  = 250 * time.Millisecond // if the kernel tells nothing
)

// wait returns when it is worth looking again, or with ctx's error.
func (w *watch) wait(ctx context.Context) error {
	if w.file == nil {
		if err := pause(ctx, blind); err != nil {
			return fmt.Errorf("wait for other tests: %w", err)
		}
		return nil
	}
	if err := w.file.SetReadDeadline(time.Now().Add(atMost)); err != nil {
		return fmt.Errorf("watch the queue of tests: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err := w.file.Read(make([]byte, 64<<10))
	if ctx.Err() != nil {
		return fmt.Errorf("wait for other tests: %w", context.Cause(ctx))
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("watch the queue of tests: %w", err)
	}
	if err == nil {
		time.Sleep(settle)
	}
	return nil
}

// pause waits for about d, so that many that wait do not look all at once, or
// returns why ctx has ended.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d/2 + rand.N(d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
