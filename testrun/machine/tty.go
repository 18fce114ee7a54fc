package machine

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"

	"vm-prebuild/testrun/pyregexp"
)

// ttyText is the command that prints the screen of a virtual terminal: the
// kernel shows it as one long line in /dev/vcsN.
func ttyText(tty string) string {
	return fmt.Sprintf("fold -w$(stty -F /dev/tty%s size | awk '{print $2}') /dev/vcs%s", tty, tty)
}

// TTYText returns what the virtual terminal of the given number shows.
func (g *Guest) TTYText(ctx context.Context, tty string) (string, error) {
	r, err := g.run(ctx, ttyText(tty), DefaultTimeout)
	return Text(r.Stdout), err
}

// DumpTTYContents writes what a virtual terminal shows to the guest's journal.
func (g *Guest) DumpTTYContents(ctx context.Context, tty string) error {
	_, err := g.run(ctx, fmt.Sprintf("fold -w 80 /dev/vcs%s | systemd-cat", tty), DefaultTimeout)
	return err
}

// WaitUntilTTYMatches waits until a regular expression of Python matches what
// a virtual terminal shows.
func (g *Guest) WaitUntilTTYMatches(ctx context.Context, tty, regex string, timeout time.Duration) error {
	return g.nested(fmt.Sprintf("waiting for %s to appear on tty %s", regex, tty), func() error {
		return g.waitForChange(ctx, change{
			command: ttyText(tty),
			regex:   regex,
			timeout: timeout,
			match: func(re *pyregexp.Regexp, text string) (bool, error) {
				return re.Search(text)
			},
			last: func(text string) string {
				return fmt.Sprintf("Last chance to match /%s/ on TTY%s, which currently contains: %s", regex, tty, text)
			},
		})
	})
}

// change describes a wait for the output of a command to match.
type change struct {
	command string
	regex   string
	timeout time.Duration
	match   func(re *pyregexp.Regexp, output string) (bool, error)
	last    func(output string) string // what is said before the last look
	failed  func(status int) error     // nil: the command's status does not matter
}

// waitForChange waits until the output of c.command matches. The guest repeats
// the command and answers when its output is another than before, so that the
// host matches what is new only.
func (g *Guest) waitForChange(ctx context.Context, c change) error {
	re, err := pyregexp.Compile(c.regex)
	if err != nil {
		return Errorf(g.Machine.Name(), "%w", err)
	}
	start := time.Now()
	const body = `new=$(look | base64 -w 0)
if [ "$new" != "$seen" ]; then printf %s "$new"; exit 0; fi`
	look := "look() { bash -c " + Quote("set -euo pipefail; "+c.command) + "; echo =$?; }"
	seen := ""
	for rest := 20 * time.Millisecond; ; rest = min(2*rest, 80*time.Millisecond) {
		code := fmt.Sprintf("set +e\n%s\nseen=%s\n%s", look, seen, body)
		encoded, err := g.poll(ctx, c.timeout-time.Since(start), code)
		var late *AssertionError
		switch {
		case errors.As(err, &late) && time.Since(start) > c.timeout-time.Second/2:
			return g.lastLook(ctx, start, c, re)
		case err != nil:
			return err
		}
		output, status, err := splitStatus(encoded)
		if err != nil {
			return Errorf(g.Machine.Name(), "output of `%s`: %w", c.command, err)
		}
		if ok, err := g.matches(c, re, status, Text(output)); ok || err != nil {
			return err
		}
		const most = 64 << 10 // the kernel takes 128 KiB as a command
		if seen = encoded; len(seen) > most {
			seen = "" // then every output is news
		}
		if err := pause(ctx, rest); err != nil { // something may change all the time
			return err
		}
	}
}

// splitStatus takes an output in base64 and the exit status behind it apart.
func splitStatus(encoded string) (output []byte, status int, err error) {
	all, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, 0, err
	}
	all = bytes.TrimSuffix(all, []byte("\n"))
	// The status has at most three digits; output need not end in a line feed.
	at := len(all)
	for at > 0 && len(all)-at < 4 && all[at-1] != statusMark {
		at--
	}
	if at == 0 || all[at-1] != statusMark {
		return nil, 0, errors.New("no exit status behind it")
	}
	status, err = strconv.Atoi(string(all[at:]))
	return all[:at-1], status, err
}

// statusMark is what comes between an output and its exit status.
const statusMark = '='

// matches looks at one output of c.command.
func (g *Guest) matches(c change, re *pyregexp.Regexp, status int, output string) (bool, error) {
	if status != 0 && c.failed != nil {
		return false, c.failed(status)
	}
	ok, err := c.match(re, output)
	if err != nil {
		return false, Errorf(g.Machine.Name(), "%w", err)
	}
	return ok, nil
}

// lastLook is the end of a wait whose time is over.
func (g *Guest) lastLook(ctx context.Context, start time.Time, c change, re *pyregexp.Regexp) error {
	const limit = 10 * time.Second // for a guest that has not answered in time
	r, err := g.run(ctx, c.command, limit)
	if err != nil {
		return err
	}
	g.Bus.Say(g.Machine.Name(), c.last(Text(r.Stdout)))
	if ok, err := g.matches(c, re, r.Status, Text(r.Stdout)); ok || err != nil {
		return err
	}
	return timedOut(start, c.timeout)
}
