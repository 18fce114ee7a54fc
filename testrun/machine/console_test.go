package machine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"vm-prebuild/testrun/machine"
)

// withConsole is a fake machine whose console comes in the given portions: in
// each, what is behind the last line feed is a line that has not ended. Then
// there is silence.
type withConsole struct {
	*fake
	portions []string
	taken    int // lines that the last success was done with
}

func (w *withConsole) FollowConsole(ctx context.Context, f func([]string, string) (int, error)) error {
	before := 0
	for _, portion := range w.portions {
		lines := strings.Split(portion, "\n")
		last := len(lines) - 1
		n, err := f(lines[:last], lines[last])
		if n > 0 || err != nil {
			w.taken = before + n
			return err
		}
		before += last
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func (w *withConsole) ConsoleSinceStart() []string { return []string{"one", "two"} }

func TestWaitForConsoleText(t *testing.T) {
	for _, test := range []struct {
		regex    string
		portions []string
		taken    int // 0: never
	}{
		{"b", []string{"a\nb\nc\n"}, 2},
		{"c", []string{"a\nb\n", "c\n"}, 3},
		{"^b$", []string{"a\nb\nc\n"}, 2},
		{"login: $", []string{"a\nlogin: "}, 2},
		{"login: $", []string{"a\n", "lo", "log", "login: "}, 2},
		{"abc", []string{"a\nb\nc\nd\n"}, 3},
		{"abc", []string{"a\n", "b\n", "c\n"}, 3},
		{"a.*d", []string{"a\nb\n", "c\n", "d\ne\nd\n"}, 4},
		{"a\nb", []string{"a\nb\n"}, 0},
		{"ab", []string{"a", "ab"}, 1},
		{"aab", []string{"a", "ab"}, 0}, // the unended line is not there twice
		{"x", nil, 0},
		{"x|", nil, -1}, // at once
		{"(?P<q>['\"])x(?P=q)", []string{"'x\"\n'x'\n"}, 2},
	} {
		t.Run(test.regex, func(t *testing.T) {
			g, f, log := newGuest(t)
			w := &withConsole{fake: f, portions: test.portions}
			g.Machine = w
			timeout := time.Minute
			if test.taken == 0 {
				timeout = 100 * time.Millisecond
			}
			err := g.WaitForConsoleText(t.Context(), test.regex, timeout)
			if test.taken == 0 {
				wantAssertion(t, err, "action timed out after ")
				wantAssertion(t, err, "(timeout=0.1)")
			} else if err != nil || w.taken != max(test.taken, 0) {
				t.Errorf("%d lines, want %d: %v", w.taken, test.taken, err)
			}
			if test.taken >= 0 && log.lines[0] != "waiting for "+test.regex+" to appear on console" {
				t.Errorf("said %q", log.lines)
			}
		})
	}
}

// A boot's worth of console is searched in no time.
func TestWaitForTextInALongConsole(t *testing.T) {
	g, f, _ := newGuest(t)
	w := &withConsole{fake: f}
	for range 30 {
		var portion strings.Builder
		for i := range 100 {
			fmt.Fprintf(&portion, "[%5d.000000] systemd[1]: Started unit %d of many\n", i, i)
		}
		w.portions = append(w.portions, portion.String())
	}
	w.portions = append(w.portions, "the end\n")
	g.Machine = w
	begin := time.Now()
	if err := g.WaitForConsoleText(t.Context(), `Started.*unit 17 .*the end$`, time.Minute); err != nil {
		t.Error(err)
	}
	if w.taken != 3001 {
		t.Errorf("%d lines", w.taken)
	}
	t.Log(time.Since(begin))
}

func TestConsoleLog(t *testing.T) {
	g, f, _ := newGuest(t)
	if log := g.ConsoleLog(); log != "last words" {
		t.Errorf("%q", log)
	}
	g.Machine = &withConsole{fake: f}
	if log := g.ConsoleLog(); log != "one\ntwo" {
		t.Errorf("%q", log)
	}
}

func TestPollingConditionsDuringAWaitForTheConsole(t *testing.T) {
	g, f, _ := newGuest(t)
	g.Machine = &withConsole{fake: f}
	calls := 0
	condition := errors.New("condition")
	g.Between = func(context.Context) error {
		if calls++; calls == 3 {
			return condition
		}
		return nil
	}
	if err := g.WaitForConsoleText(t.Context(), "never", machine.Forever); !errors.Is(err, condition) || calls != 3 {
		t.Errorf("%v after %d calls", err, calls)
	}
	g.Machine = &withConsole{fake: f, portions: []string{"there\n"}}
	g.Between = func(context.Context) error { return nil }
	if err := g.WaitForConsoleText(t.Context(), "there", machine.Forever); err != nil {
		t.Error(err)
	}
}
