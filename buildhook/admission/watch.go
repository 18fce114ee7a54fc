package admission

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watch notices changes of tickets.
type watch struct{ file *os.File }

func newWatch(dir string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch the queue of tests: %w\nhint: see fs.inotify.max_user_instances", err)
	}
	// A ticket is removed, or begins to run; a process that has died closes it.
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_DELETE|unix.IN_CLOSE_WRITE|unix.IN_MODIFY|unix.IN_ONLYDIR); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch the queue of tests: %w\nhint: see fs.inotify.max_user_watches", err)
	}
	return &watch{os.NewFile(uintptr(fd), "inotify")}, nil
}

// Times between looks at the tickets. The kernel tells that a file is closed just
// before it releases the lock on it. That it tells is not relied upon.
const (
	settle = 5 * time.Millisecond
	atMost = time.Second
)

// wait returns when it is worth looking again, or with ctx's error.
func (w *watch) wait(ctx context.Context) error {
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
