package machine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A wait is a command that the guest repeats by itself, so that a poll costs no
// round trip and can be frequent: see Repeater. The guest gives up after a
// while and is asked again by the host: another thread of the script gets its
// turn at the shell in between, polling conditions are checked, and a guest
// that has stopped is noticed.
const (
	slice        = 2 * time.Second
	slicePolling = 500 * time.Millisecond // with polling conditions
)

// wait describes one.
type wait struct {
	command string
	fail    bool // wait for it to fail instead
	tell    bool // tell what the last attempt came to
	timeout time.Duration
}

// await repeats a command until it ends as awaited and returns its output.
func (g *Guest) await(ctx context.Context, w wait) (string, error) {
	sh, err := g.Shell(ctx)
	if err != nil {
		return "", err
	}
	start := time.Now()
	var last Result // of an attempt
	late := func() error { return g.timedOut(start, w, last) }
	for first := true; ; first = false {
		left := w.timeout - time.Since(start)
		if left <= 0 {
			if !first {
				return "", late()
			}
			left = time.Second // a time-out of 0 still means one look
		}
		duration := slice
		if g.Between != nil {
			duration = slicePolling
			if err := g.Between(ctx); err != nil {
				return "", err
			}
		}
		limit := left
		if w.fail {
			// An attempt that is cut short would count as a failure.
			limit = max(w.timeout, time.Second)
		}
		if g.Attempt > 0 {
			limit = min(limit, g.Attempt)
		}
		r, done, err := repeat(ctx, sh, w.command, w.fail, limit, min(duration, left))
		if err == nil {
			last = r
		}
		var silent interface{ Timeout() bool }
		switch {
		case errors.As(err, &silent) && silent.Timeout() && ctx.Err() == nil && g.ailment() == "":
			return "", late() // the guest is too slow to say so itself
		case err != nil:
			return "", g.explain(ctx, err)
		case done:
			return Text(r.Stdout), nil
		}
	}
}

// repeat is Repeater.Repeat for any shell.
func repeat(ctx context.Context, sh Shell, command string, fail bool, limit, duration time.Duration) (Result, bool, error) {
	if r, ok := sh.(Repeater); ok {
		return r.Repeat(ctx, command, fail, limit, duration)
	}
	end := time.Now().Add(duration)
	for {
		r, err := sh.Run(ctx, command, limit)
		if err != nil || (r.Status != 0) == fail {
			return r, err == nil, err
		}
		if time.Now().After(end) {
			return r, false, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return r, false, context.Cause(ctx)
		}
	}
}

// statusTimeout is the exit status of a command that took too long, as of
// coreutils' timeout.
const statusTimeout = 124

// statusAgain is how a poll says that the awaited is not there.
const statusAgain = 75 // EX_TEMPFAIL of sysexits.h

// poll repeats bash code in the guest until it leaves with status 0, and
// returns what it wrote. Code that falls through is repeated.
func (g *Guest) poll(ctx context.Context, timeout time.Duration, code string) (string, error) {
	return g.await(ctx, wait{command: fmt.Sprintf("%s\nexit %d", code, statusAgain), timeout: timeout})
}

// timedOut is the error of a wait whose time is over, with a note of what its
// last attempt came to.
func (g *Guest) timedOut(start time.Time, w wait, last Result) error {
	err := timedOut(start, w.timeout)
	if w.tell && last.Status != 0 {
		err.Note = g.note(last, fmt.Sprintf("the last attempt of `%s` on %s ended with exit code %d", w.command, g.Machine.Name(), last.Status))
	}
	return err
}

func timedOut(start time.Time, timeout time.Duration) *AssertionError {
	return &AssertionError{Message: fmt.Sprintf("action timed out after %.2f seconds (timeout=%s)", time.Since(start).Seconds(), PythonSeconds(timeout))}
}

// PythonSeconds prints d as Python prints a float of seconds: 900.0, 0.25.
func PythonSeconds(d time.Duration) string {
	s := strconv.FormatFloat(d.Seconds(), 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// WaitUntilSucceeds repeats a command until it exits with status 0 and returns
// the output of that run.
func (g *Guest) WaitUntilSucceeds(ctx context.Context, command string, timeout time.Duration) (output string, err error) {
	err = g.nested("waiting for success: "+command, func() error {
		output, err = g.await(ctx, wait{command: command, tell: true, timeout: timeout})
		return err
	})
	return output, err
}

// WaitUntilFails repeats a command until it exits with another status than 0
// and returns the output of that run.
func (g *Guest) WaitUntilFails(ctx context.Context, command string, timeout time.Duration) (output string, err error) {
	err = g.nested("waiting for failure: "+command, func() error {
		output, err = g.await(ctx, wait{command: command, fail: true, timeout: timeout})
		return err
	})
	return output, err
}

// waitTest waits until a bash test command holds.
func (g *Guest) waitTest(ctx context.Context, title, test string, timeout time.Duration) error {
	return g.nested(title, func() error {
		_, err := g.await(ctx, wait{command: "{ " + test + "; } >/dev/null 2>&1", timeout: timeout})
		return err
	})
}

// WaitForFile waits until a file exists. The name is not quoted, as in
// nixpkgs' driver: scripts use globs.
func (g *Guest) WaitForFile(ctx context.Context, name string, timeout time.Duration) error {
	return g.waitTest(ctx, fmt.Sprintf("waiting for file '%s'", name), "test -e "+name, timeout)
}

// Sleep lets d pass on the guest's clock.
func (g *Guest) Sleep(ctx context.Context, d time.Duration) error {
	_, err := g.Succeed(ctx, []string{"sleep " + strconv.FormatFloat(d.Seconds(), 'f', -1, 64)}, 0)
	return err
}

// Quote returns s as one word of a POSIX shell.
func Quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'"'"'`) + "'"
}
