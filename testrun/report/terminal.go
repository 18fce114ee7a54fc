// Package report holds the sinks that turn the events of a test into something
// to read: [Terminal], [XMLLog] and [JUnit] in the formats of nixpkgs' driver,
// [JSONLines] for programs, [SerialDir] for a console at a time, and [Page] for
// people, in HTML. A sink implements event.Sink; its constructor opens its file,
// so that a report that cannot be written is known before any machine boots.
package report

import (
	"bufio"
	"io"
	"regexp"
	"strings"

	"vm-prebuild/testrun/event"
)

// Terminal prints events in the format and with the phrases of nixpkgs' Python
// driver, which people grep for.
type Terminal struct {
	out     *bufio.Writer
	level   event.Level
	colours bool
	serial  func() bool
}

// NewTerminal returns a sink that prints to w. Messages below level are left
// out; serial says, at each line of a serial console, whether to print it.
func NewTerminal(w io.Writer, level event.Level, colours bool, serial func() bool) *Terminal {
	return &Terminal{out: bufio.NewWriter(w), level: level, colours: colours, serial: serial}
}

const (
	bright = "\x1b[1m"
	green  = "\x1b[32m"
	red    = "\x1b[31m"
	dim    = "\x1b[2m"
	reset  = "\x1b[0m"
)

// Handle implements event.Sink.
func (t *Terminal) Handle(r event.Record) {
	switch e := r.Event.(type) {
	case event.Log:
		switch {
		case !e.Always && e.Level < t.level:
		case e.Level == event.Debug && !e.Always:
			t.line("", t.paint(dim, from(e.Machine)+printable(e.Text)))
		default:
			t.line(from(e.Machine), t.coloured(e.Text))
		}
	case event.Output:
		if t.level <= event.Debug {
			t.line("", t.paint(dim, from(e.Machine)+printable(e.Text)))
		}
	case event.BlockOpen:
		t.line(from(e.Machine), t.paint(bright+green, printable(e.Text)))
	case event.BlockClose:
		if e.Failure == "" {
			t.line(from(e.Machine), printable(finished(e)))
		}
	case event.Serial:
		if t.serial() {
			t.line("", t.paint(dim, e.Machine+" # "+printable(e.Text)))
		}
	case event.TestFailure:
		// No level hides what has failed.
		for _, l := range e.Lines {
			t.line(t.paint(red, "!!! "), printable(l))
		}
	}
	// A reader on the other end of a pipe sees each event as it happens.
	_ = t.out.Flush()
}

// Close implements event.Sink.
func (t *Terminal) Close() error { return t.out.Flush() }

func (t *Terminal) line(prefix, text string) {
	t.out.WriteString(prefix)
	t.out.WriteString(text)
	t.out.WriteByte('\n')
}

func (t *Terminal) paint(colour, text string) string {
	if !t.colours {
		return text
	}
	return colour + text + reset
}

// colours are the control sequences that change how text looks, and nothing else.
var colours = regexp.MustCompile("\x1b\\[[0-9;:]*m")

// coloured is printable that leaves a script the colours of its messages where
// there are any.
func (t *Terminal) coloured(text string) string {
	var b strings.Builder
	rest := text
	for t.colours {
		at := colours.FindStringIndex(rest)
		if at == nil {
			break
		}
		b.WriteString(printable(rest[:at[0]]) + rest[at[0]:at[1]])
		rest = rest[at[1]:]
	}
	b.WriteString(printable(rest))
	if len(rest) < len(text) {
		b.WriteString(reset)
	}
	return b.String()
}

func from(machine string) string {
	if machine == "" {
		return ""
	}
	return machine + ": "
}
