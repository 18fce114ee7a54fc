package testrun

import (
	"context"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
)

// consoleCalls concern the serial console and the virtual terminals.
var consoleCalls = map[string]machineCall{
	"wait_for_console_text": waitRegexp("regex", (*machine.Guest).WaitForConsoleText, machine.Forever),
	"get_console_log": func(_ context.Context, g *machine.Guest, _ script.Request) (any, error) {
		return g.ConsoleLog(), nil
	},
	"send_console": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct{ Chars string }
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return none, g.SendConsole(ctx, a.Chars)
	},
	"get_tty_text": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		a, err := ttyArgs(r)
		if err != nil {
			return nil, err
		}
		return g.TTYText(ctx, a.TTY)
	},
	"dump_tty_contents": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		a, err := ttyArgs(r)
		if err != nil {
			return nil, err
		}
		return none, g.DumpTTYContents(ctx, a.TTY)
	},
	"wait_until_tty_matches": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		a, err := ttyArgs(r)
		if err != nil {
			return nil, err
		}
		return none, g.WaitUntilTTYMatches(ctx, a.TTY, a.Regexp, a.Timeout.or(machine.DefaultTimeout))
	},
}

type tty struct {
	TTY     string
	Regexp  string
	Timeout duration
}

func ttyArgs(r script.Request) (tty, error) {
	var a tty
	err := r.Decode(&a)
	return a, err
}
