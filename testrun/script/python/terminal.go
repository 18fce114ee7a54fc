package python

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// terminal is lent to an interactive interpreter; nil is no terminal.
type terminal struct {
	fd    int
	state *term.State
}

// lendTerminal has cmd run in the foreground of stdin, if that is a terminal.
func lendTerminal(stdin *os.File, cmd *exec.Cmd) (*terminal, error) {
	fd := int(stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, nil
	}
	state, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("read state of terminal %s: %w", stdin.Name(), err)
	}
	cmd.SysProcAttr.Foreground = true
	cmd.SysProcAttr.Ctty = fd
	return &terminal{fd: fd, state: state}, nil
}

// reclaim makes us the foreground again and restores the terminal's modes,
// which a killed interpreter leaves as they are while a line is edited.
func (t *terminal) reclaim() error {
	if t == nil {
		return nil
	}
	// In the background until the first call succeeds, we would be stopped.
	signal.Ignore(unix.SIGTTOU)
	defer signal.Reset(unix.SIGTTOU)
	err := errors.Join(
		unix.IoctlSetPointerInt(t.fd, unix.TIOCSPGRP, unix.Getpgrp()),
		term.Restore(t.fd, t.state),
	)
	if err != nil {
		return fmt.Errorf("take back the terminal: %w", err)
	}
	return nil
}
