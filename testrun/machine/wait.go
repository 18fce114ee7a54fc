package machine

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A wait is one bash loop inside the guest, so that a poll costs no round trip
// and can be frequent. The loop gives up after a list of pauses, with status
// statusAgain, and is started anew by the host: another thread of the script
// gets its turn at the shell in between, and a guest that has stopped is
// noticed.
const statusAgain = 75 // EX_TEMPFAIL of sysexits.h

// statusTimeout is the exit status of coreutils' timeout.
const statusTimeout = 124

// pauses are the seconds to sleep after each poll of one loop: the first loop
// begins with 20 ms and backs off, later ones poll every 250 ms.
func pauses(first bool) string {
	if first {
		return "0.02 0.02 0.02 0.02 0.04 0.04 0.06 0.08 0.1 0.15 0.2 0.25"
	}
	return strings.Repeat("0.25 ", 8)
}

// poll runs body in the guest until it leaves the loop with status 0, and
// returns what it wrote. body is bash code that ends in "exit 0" when the
// awaited is there and falls through otherwise.
func (g *Guest) poll(ctx context.Context, timeout time.Duration, setup, body string) (string, error) {
	start := time.Now()
	for first := true; ; first = false {
		left := timeout - time.Since(start)
		if left <= 0 {
			if !first {
				return "", timedOut(start, timeout)
			}
			left = time.Second // a time-out of 0 still means one look
		}
		if g.Between != nil {
			if err := g.Between(ctx); err != nil {
				return "", err
			}
		}
		script := fmt.Sprintf("%s\nfor pause in %s; do\n%s\nsleep $pause\ndone\nexit %d", setup, pauses(first), body, statusAgain)
		status, output, err := g.run(ctx, script, left)
		var late interface{ Timeout() bool }
		switch {
		case errors.As(err, &late) && late.Timeout() && ctx.Err() == nil:
			return "", timedOut(start, timeout) // the guest is too slow to say so itself
		case err != nil:
			return "", err
		case status == 0:
			return text(output), nil
		case status == statusTimeout:
			return "", timedOut(start, timeout)
		case status != statusAgain:
			return "", Errorf(g.Machine.Name(), "waiting in the guest failed with exit code %d", status)
		}
	}
}

func timedOut(start time.Time, timeout time.Duration) error {
	return assertionf("action timed out after %.2f seconds (timeout=%s)", time.Since(start).Seconds(), PythonSeconds(timeout))
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
func (g *Guest) WaitUntilSucceeds(ctx context.Context, command string, timeout time.Duration) (string, error) {
	return g.waitCommand(ctx, "waiting for success: "+command, command, timeout, "")
}

// WaitUntilFails repeats a command until it exits with another status than 0
// and returns the output of that run.
func (g *Guest) WaitUntilFails(ctx context.Context, command string, timeout time.Duration) (string, error) {
	return g.waitCommand(ctx, "waiting for failure: "+command, command, timeout, "! ")
}

func (g *Guest) waitCommand(ctx context.Context, title, command string, timeout time.Duration, not string) (output string, err error) {
	// base64 keeps the output exact: $(…) would drop NUL bytes and line feeds.
	body := fmt.Sprintf(`if %sout=$(bash -c %s | base64 -w 0); then printf %%s "$out"; exit 0; fi`,
		not, Quote("set -euo pipefail; "+command))
	err = g.nested(title, func() error {
		encoded, err := g.poll(ctx, timeout, "set +e", body)
		if err != nil {
			return err
		}
		raw, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return Errorf(g.Machine.Name(), "output of the awaited command: %w", err)
		}
		output = text(raw)
		return nil
	})
	return output, err
}

// waitTest waits until a bash test command holds.
func (g *Guest) waitTest(ctx context.Context, title, test string, timeout time.Duration) error {
	return g.nested(title, func() error {
		_, err := g.poll(ctx, timeout, "", "if "+test+" >/dev/null 2>&1; then exit 0; fi")
		return err
	})
}

// WaitForFile waits until a file exists. The name is not quoted, as in
// nixpkgs' driver: scripts use globs.
func (g *Guest) WaitForFile(ctx context.Context, name string, timeout time.Duration) error {
	return g.waitTest(ctx, fmt.Sprintf("waiting for file '%s'", name), "test -e "+name, timeout)
}

// tcpOpen tries one connection. A host that drops packets cannot hold it up
// for longer than 5 s.
func tcpOpen(addr string, port int) string {
	return fmt.Sprintf("timeout 5 nc -z %s %d", Quote(addr), port)
}

// WaitForOpenPort waits until a TCP port of addr, seen from the guest, accepts
// connections.
func (g *Guest) WaitForOpenPort(ctx context.Context, addr string, port int, timeout time.Duration) error {
	return g.waitTest(ctx, fmt.Sprintf("waiting for TCP port %d on %s", port, addr), tcpOpen(addr, port), timeout)
}

// WaitForClosedPort waits until a TCP port of addr, seen from the guest, does
// not accept connections.
func (g *Guest) WaitForClosedPort(ctx context.Context, addr string, port int, timeout time.Duration) error {
	return g.waitTest(ctx, fmt.Sprintf("waiting for TCP port %d on %s to be closed", port, addr), "! "+tcpOpen(addr, port), timeout)
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
