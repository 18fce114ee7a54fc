package machine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"vm-prebuild/testrun/pyregexp"
)

// Forever is the time-out of a wait that only ctx and the end of the machine
// limit.
const Forever = time.Duration(math.MaxInt64)

// ConsoleFollower hands out the text of the serial console while it comes.
//
// FollowConsole calls f with the text since the last success of FollowConsole,
// or else since the machine's start, and again whenever there is more: lines
// that have ended, each once, and the beginning of the one that has not. f
// returns how many lines are done with, of those of this call and the unended
// one; from 1 on this is a success, and later calls begin behind them.
// The error is that of f, the cause of ctx, or says how the machine ended; the
// machine must have been started.
type ConsoleFollower interface {
	FollowConsole(ctx context.Context, f func(lines []string, rest string) (int, error)) error

	// ConsoleSinceStart is what the machine has written since it was started.
	ConsoleSinceStart() []string
}

// ConsoleLog returns the console since the machine's start.
func (g *Guest) ConsoleLog() string {
	lines := g.Machine.Console()
	if c, ok := g.Machine.(ConsoleFollower); ok {
		lines = c.ConsoleSinceStart()
	}
	return strings.Join(lines, "\n")
}

// WaitForConsoleText waits until the console shows a match of a regular
// expression of Python: in one line, or in all the lines since the last
// success, one behind the other without line feeds, as in nixpkgs' driver. A
// line that has not ended, a prompt, counts as well. Text up to and with the
// line of the match is not looked at again; a wait that fails leaves it all.
func (g *Guest) WaitForConsoleText(ctx context.Context, regex string, timeout time.Duration) error {
	c, err := capability[ConsoleFollower](g.Machine, "show a console")
	if err != nil {
		return err
	}
	re, err := pyregexp.Compile(regex)
	if err != nil {
		return Errorf(g.Machine.Name(), "%w", err)
	}
	if empty, err := re.Search(""); err != nil || empty {
		return err // there is nothing to wait for
	}
	return g.nested(fmt.Sprintf("waiting for %s to appear on console", regex), func() error {
		start := time.Now()
		errLate := errors.New("the console does not show the text")
		if timeout < Forever {
			var cancel context.CancelFunc
			// A time-out of 0 still means one look.
			ctx, cancel = context.WithTimeoutCause(ctx, max(timeout, time.Second/10), errLate)
			defer cancel()
		}
		search := consoleSearch{ctx: ctx, re: re}
		err := g.meanwhile(ctx, func(ctx context.Context) error {
			return c.FollowConsole(ctx, search.next)
		})
		if errors.Is(err, errLate) {
			return timedOut(start, timeout)
		}
		return err
	})
}

// meanwhile calls f, and Between every second until f has returned. An error
// of Between ends f.
func (g *Guest) meanwhile(ctx context.Context, f func(context.Context) error) error {
	if g.Between == nil {
		return f(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var result error
	done := make(chan struct{})
	go func() {
		defer close(done)
		result = f(ctx)
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if err := g.Between(ctx); err != nil {
			cancel(err)
			<-done
			return err // whatever f has found
		}
		select {
		case <-done:
			return result
		case <-tick.C:
		}
	}
}

// consoleSearch looks for an expression in a growing text.
type consoleSearch struct {
	ctx  context.Context
	re   *pyregexp.Regexp
	text []byte // all lines so far, one behind the other
}

// next is the function that FollowConsole calls.
func (s *consoleSearch) next(lines []string, rest string) (int, error) {
	all := append(lines[:len(lines):len(lines)], rest)
	// The first line with a match of its own; the match may be one that only
	// anchors make.
	found := len(all)
	for i, line := range all {
		ok, err := s.re.Search(line)
		if err != nil {
			return 0, err
		}
		if ok {
			found = i
			break
		}
	}
	before := len(s.text)
	ends := make([]int, 0, len(all)) // of each line in the text
	for _, line := range all[:min(found+1, len(all))] {
		s.text = append(s.text, line...)
		ends = append(ends, len(s.text))
	}
	begin := time.Now()
	together, err := s.re.SearchBytes(s.text)
	switch {
	case err != nil:
		return 0, err
	case together:
		return s.earliest(ends)
	case found < len(all):
		return found + 1, nil
	}
	if len(lines) > 0 {
		before = ends[len(lines)-1]
	}
	s.text = s.text[:before]
	// A long text is searched seldom enough to cost a tenth of a core.
	return 0, pause(s.ctx, min(9*time.Since(begin), time.Second/4))
}

// earliest returns how many lines the text needs for a match; with all of them
// it has one.
func (s *consoleSearch) earliest(ends []int) (int, error) {
	low, high := 0, len(ends)-1 // the last line that is needed
	for low < high {
		middle := (low + high) / 2
		ok, err := s.re.SearchBytes(s.text[:ends[middle]])
		if err != nil {
			return 0, err
		}
		if ok {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return high + 1, nil
}
