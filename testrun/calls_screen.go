package testrun

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"time"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
)

// screenCalls look at the screen and press keys.
var screenCalls = map[string]machineCall{
	"send_key": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		a := struct {
			Key   string
			Delay duration
			Log   *bool
		}{}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		quiet := a.Log != nil && !*a.Log
		return none, g.SendKey(ctx, a.Key, a.Delay.or(machine.DefaultKeyDelay), quiet)
	},
	"send_chars": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct {
			Chars string
			Delay duration
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return none, g.SendChars(ctx, a.Chars, a.Delay.or(machine.DefaultKeyDelay))
	},
	"get_screen_text": func(ctx context.Context, g *machine.Guest, _ script.Request) (any, error) {
		return g.ScreenText(ctx)
	},
	"get_screen_text_variants": func(ctx context.Context, g *machine.Guest, _ script.Request) (any, error) {
		return g.ScreenTextVariants(ctx)
	},
	"wait_for_text":   waitRegexp("regex", (*machine.Guest).WaitForText, machine.DefaultTimeout),
	"wait_for_window": waitRegexp("regexp", (*machine.Guest).WaitForWindow, machine.DefaultTimeout),
	"get_window_names": func(ctx context.Context, g *machine.Guest, _ script.Request) (any, error) {
		return g.WindowNames(ctx)
	},
	"wait_for_x": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct{ Timeout duration }
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return none, g.WaitForX(ctx, a.Timeout.or(machine.DefaultTimeout))
	},
}

// waitRegexp is a wait for a regular expression, which nixpkgs' driver calls
// regex here and regexp there.
func waitRegexp(parameter string, f func(*machine.Guest, context.Context, string, time.Duration) error, otherwise time.Duration) machineCall {
	return func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct {
			Regex, Regexp string
			Timeout       duration
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		expression := a.Regex
		if parameter == "regexp" {
			expression = a.Regexp
		}
		return none, f(g, ctx, expression, a.Timeout.or(otherwise))
	}
}

// readers is how many programs may read screens at once: half of the cores
// that Nix gives to the build, as the guests want some, too.
func readers() int {
	cores, err := strconv.Atoi(os.Getenv("NIX_BUILD_CORES"))
	if err != nil || cores <= 0 { // 0 stands for all
		cores = runtime.NumCPU()
	}
	return max(1, cores/2)
}
