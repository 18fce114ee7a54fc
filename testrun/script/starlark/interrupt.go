package starlark

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// interruptWatch looks for Ctrl-C on a terminal that nobody reads from, as a
// byte rather than a signal, which would reach the whole driver.
type interruptWatch struct {
	fd   int
	old  unix.Termios
	done chan struct{}
	wg   sync.WaitGroup
}

// ctrlC is what the terminal sends for it.
const ctrlC = 3

// watchInterrupt calls f when Ctrl-C is typed, until stop.
func watchInterrupt(fd int, f func()) (*interruptWatch, error) {
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("settings of the terminal: %w", err)
	}
	w := &interruptWatch{fd: fd, old: *old, done: make(chan struct{})}
	quiet := *old
	quiet.Lflag &^= unix.ISIG | unix.ICANON | unix.ECHO
	quiet.Cc[unix.VMIN], quiet.Cc[unix.VTIME] = 0, 1 // a read takes 0.1 s at most
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &quiet); err != nil {
		return nil, fmt.Errorf("settings of the terminal: %w", err)
	}
	w.wg.Go(func() {
		var b [16]byte
		for {
			select {
			case <-w.done:
				return
			default:
			}
			n, err := unix.Read(fd, b[:])
			if err != nil && err != unix.EINTR { //nolint:errorlint // a plain errno
				return
			}
			for _, c := range b[:max(n, 0)] {
				if c == ctrlC {
					f()
				}
			}
		}
	})
	return w, nil
}

// stop gives the terminal back.
func (w *interruptWatch) stop() {
	close(w.done)
	w.wg.Wait()
	_ = unix.IoctlSetTermios(w.fd, unix.TCSETS, &w.old) // it is gone: so is its user
}
