// Package python runs test scripts in real CPython (3.11 or newer), unmodified
// and out of process: see [Host].
//
// The interpreter gets the package test_driver, which is embedded here (folder
// shim), and one end of a socket pair as descriptor 3. Both sides write JSON
// objects, one a line; message.go describes them. The script's symbols are
// those of nixpkgs' Python driver.
package python

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/script"
)

// exitGrace is how long the interpreter may take to leave after the script has
// ended: its atexit handlers run and its threads are joined.
const exitGrace = 5 * time.Second

// Host implements [script.Host] with CPython. Its zero value is ready to use.
//
// The interpreter runs in a process group of its own, which is killed when the
// context ends and when the interpreter has exited: nothing that the script
// started stays behind. It also kills its group itself when its socket closes,
// which is when the driver dies, in whichever way.
type Host struct {
	// Python is the interpreter: a path, or a name looked up on $PATH. The
	// default is "python3".
	Python string

	// Start starts the interpreter's command; the default is its Start method.
	// The host sets SysProcAttr.Setpgid, which Start must keep.
	Start func(*exec.Cmd) error

	// Stdin is the terminal of Interact; the default is os.Stdin. Scripts that
	// are run read from /dev/null.
	Stdin *os.File

	// Stdout and Stderr receive what the script prints; the defaults are
	// os.Stdout and os.Stderr.
	Stdout, Stderr io.Writer
}

var _ script.Host = Host{}

// Run runs the script of s. Besides what [script.Host] says, it returns an
// error that names the interpreter when that is missing, too old, or dies.
func (h Host) Run(ctx context.Context, s script.Session) error {
	if _, err := os.Stat(s.ScriptPath); err != nil {
		return fmt.Errorf("read test script: %w", err)
	}
	return h.converse(ctx, h.command(), s, modeRun)
}

// Interact offers the symbols of s at a prompt on h.Stdin. When that is a
// terminal, the prompt is the first of ptpython and IPython that the
// interpreter has, else Python's own console with a history; and the
// interpreter becomes the foreground process group: Ctrl-C interrupts what the
// user typed, and not the driver.
func (h Host) Interact(ctx context.Context, s script.Session) error {
	stdin := h.Stdin
	if stdin == nil {
		stdin = os.Stdin
	}
	cmd := h.command()
	cmd.Stdin = stdin
	tty, err := lendTerminal(stdin, cmd)
	if err != nil {
		return err
	}
	err = h.converse(ctx, cmd, s, modeInteract)
	if ttyErr := tty.reclaim(); err == nil {
		err = ttyErr
	}
	return err
}

// converse starts cmd, serves it until it has exited, and returns how the
// script ended.
func (h Host) converse(ctx context.Context, cmd *exec.Cmd, s script.Session, mode string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	callCtx, cancelCalls := context.WithCancel(ctx)
	defer cancelCalls()
	child, err := h.start(cmd, cancelCalls)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, child.kill)
	defer stop()

	grace := time.AfterFunc(exitGrace, func() {
		s.Bus.Log(event.Warning, "", fmt.Sprintf("Python is still running %s after the script's end: killed", exitGrace))
		child.kill()
	})
	grace.Stop()
	defer grace.Stop()

	c := newConversation(s, child.conn, func() { grace.Reset(exitGrace) })
	err = c.serve(callCtx, mode)
	if err != nil {
		child.kill()
	}
	state := child.wait()

	var result error
	switch {
	case c.ended:
		result = c.result
	case ctx.Err() != nil:
		result = context.Cause(ctx)
	case err != nil:
		result = fmt.Errorf("%s: %w", cmd.Path, err)
	default:
		result = fmt.Errorf("%s died before the script ended: %s", cmd.Path, state)
	}
	c.close(result)
	return result
}
