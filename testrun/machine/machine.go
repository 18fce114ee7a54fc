// Package machine holds what every kind of machine has in common: the small
// [Machine] interface that a backend implements, its optional capabilities,
// which are interfaces of one or two methods found by type assertion, and
// [Guest], the operations of a test script (succeed, wait_for_unit, …) built
// on top of them once for all backends.
package machine

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// Machine is what every backend can do.
type Machine interface {
	// Name is the machine's name in the test; it never changes.
	Name() string

	// Dirs are the host directories that belong to the machine.
	Dirs() Dirs

	// Start boots the machine and returns once it is running, which is before
	// its shell answers. On a machine that runs already it does nothing. It
	// fails when the machine's process exits or ctx ends first.
	Start(ctx context.Context, o StartOptions) error

	// Shell returns the machine's root shell, and waits for it if need be. The
	// machine must have been started.
	Shell(ctx context.Context) (Shell, error)

	// Running reports whether the machine has been started and not ended.
	Running() bool

	// Wait returns when the machine has ended; at once when it never ran. The
	// end was expected then: the machine can be started again. That its process
	// was killed is an error.
	Wait(ctx context.Context) error

	// Console returns what the machine has written to its serial console, a
	// line each.
	Console() []string

	// Release ends the machine at once and frees all that it holds. The
	// machine can be started again.
	Release() error
}

// Dirs are the host directories that belong to a machine; all are absolute.
type Dirs struct {
	State  string // sockets, disks: vm-state-NAME
	Shared string // the guest sees it as /tmp/shared; common to all machines
	Out    string // results of the test
}

// StartOptions say how to start a machine.
type StartOptions struct {
	AllowReboot bool     // a guest that reboots does; otherwise it ends
	Env         []string // environment of the machine's process; nil: ours
	SharedDir   string   // in place of that of Dirs, in this run; "" for none
}

// Shell runs bash command lines as root in a guest.
type Shell interface {
	// Run runs a command to its end. A positive timeout ends the command in
	// the guest with status 124; the error is one with a true Timeout method
	// when the guest does not answer even then.
	Run(ctx context.Context, command string, timeout time.Duration) (Result, error)

	// Send starts a command and does not wait for it.
	Send(ctx context.Context, command string, timeout time.Duration) error
}

// Capabilities that not every shell has.
type (
	// Repeater repeats a command in the guest until it succeeds or, with fail
	// set, fails; a positive limit ends an attempt with status 124. It gives up
	// after about duration, with done unset.
	Repeater interface {
		Repeat(ctx context.Context, command string, fail bool, limit, duration time.Duration) (r Result, done bool, err error)
	}
	// Streamer runs commands with input or output of any length. The output of
	// Receive is not in its result; Feed gives the next n bytes of in.
	Streamer interface {
		Receive(ctx context.Context, command string, w io.Writer) (Result, error)
		Feed(ctx context.Context, command string, in io.Reader, n int64) (Result, error)
	}
	// Sleeper gives the guest's console to a program, until it exits. Sleep has
	// the guest's shell execute it, and Ask writes a line to it. Both return what
	// the program says next: what is behind "vmt-says " in a line of its output.
	// No other method may be called meanwhile.
	Sleeper interface {
		Sleep(ctx context.Context, program string) (string, error)
		Ask(ctx context.Context, line string) (string, error)
	}
)

// Result is a command that has ended.
type Result struct {
	Status int
	Stdout []byte
	Stderr []byte // empty where the shell cannot tell it from the console
}

// Capabilities that not every backend has.
type (
	// Crasher can end a machine as if its power had failed.
	Crasher interface {
		Crash(ctx context.Context) error
	}
	// Rebooter can ask the guest to reboot, as ctrl-alt-delete does. The next
	// Shell is that of the rebooted guest.
	Rebooter interface {
		Reboot(ctx context.Context) error
	}
	// Screenshotter writes a picture of the machine's screen, a PNG, to file.
	Screenshotter interface {
		Screenshot(ctx context.Context, file string) error
	}
	// Monitor takes a line of QEMU's human monitor and returns the answer.
	Monitor interface {
		MonitorCommand(ctx context.Context, line string) (string, error)
	}
	// Connector tells whether the guest's shell has answered since it booted,
	// and can forget that it has: a guest that starts another kernel greets
	// anew.
	Connector interface {
		Connected() bool
		Disconnect()
	}
	// Patient tells what ails the machine: what explains that commands fail or
	// do not answer. It is empty when nothing does.
	Patient interface {
		Ailment() string
	}
	// Mover gives the machine other directories: for results at once, for
	// state and sharing from the next start on.
	Mover interface {
		SetDirs(Dirs)
	}
	// HasProcess tells the number of the machine's process, 0 when it does not
	// run; and that of the last one, 0 before the first.
	HasProcess interface {
		PID() int
		LastPID() int
	}
	// Linker cuts and restores the machine's links to the VLANs.
	Linker interface {
		SetLinks(ctx context.Context, up bool) error
	}
)

// capability returns m as a T, or an error that says what m cannot do.
func capability[T any](m Machine, verb string) (T, error) {
	c, ok := m.(T)
	if !ok {
		return c, Errorf(m.Name(), "cannot %s", verb)
	}
	return c, nil
}

// Error says that a machine could not do what was asked of it.
type Error struct {
	Machine string
	Err     error
	Console []string // last lines of the console; may be empty
}

// Errorf returns an *Error of the named machine.
func Errorf(machine, format string, args ...any) *Error {
	return &Error{Machine: machine, Err: fmt.Errorf(format, args...)}
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "machine %q: %v", e.Machine, e.Err)
	if len(e.Console) > 0 {
		fmt.Fprintf(&b, "\nlast lines of the console of %q:", e.Machine)
		for _, l := range e.Console {
			b.WriteString("\n  " + l)
		}
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// AssertionError says that an expectation of the script was not met.
type AssertionError struct {
	Message string // as of nixpkgs' driver, so that scripts can compare it
	Note    string // what else is known, "" for nothing
}

func (e *AssertionError) Error() string {
	if e.Note == "" {
		return e.Message
	}
	return e.Message + "\n" + e.Note
}

// Parts implements script.Noted.
func (e *AssertionError) Parts() (message, note string) { return e.Message, e.Note }

// ScriptKind implements script.Kinder.
func (e *AssertionError) ScriptKind() string { return "assertion" }

func assertionf(format string, args ...any) error {
	return &AssertionError{Message: fmt.Sprintf(format, args...)}
}

// ConsoleTail is how many lines of the console an error carries.
const ConsoleTail = 50

// Tail returns the last lines of a console, at most ConsoleTail.
func Tail(lines []string) []string {
	return lines[max(0, len(lines)-ConsoleTail):]
}
