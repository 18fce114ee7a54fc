package testrun

import (
	"context"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
)

// lifeCycleCalls start, end and look at a machine.
var lifeCycleCalls = map[string]machineCall{
	"start": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct {
			AllowReboot bool `json:"allow_reboot"`
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		o := g.Boot
		o.AllowReboot = a.AllowReboot
		return none, g.Start(ctx, o)
	},
	"connect": func(ctx context.Context, g *machine.Guest, _ script.Request) (any, error) {
		_, err := g.Shell(ctx)
		return none, err
	},
	"shutdown":          plain((*machine.Guest).Shutdown),
	"wait_for_shutdown": plain((*machine.Guest).WaitForShutdown),
	"crash":             plain((*machine.Guest).Crash),
	"reboot":            plain((*machine.Guest).Reboot),
	"release": func(_ context.Context, g *machine.Guest, _ script.Request) (any, error) {
		return none, g.Machine.Release()
	},
	"block": func(ctx context.Context, g *machine.Guest, _ script.Request) (any, error) {
		return none, g.SetLinks(ctx, false)
	},
	"unblock": func(ctx context.Context, g *machine.Guest, _ script.Request) (any, error) {
		return none, g.SetLinks(ctx, true)
	},
	"is_up": func(_ context.Context, g *machine.Guest, _ script.Request) (any, error) {
		return g.Up(), nil
	},
	"get_attribute": getAttribute,
	"set_attribute": setAttribute,
	"send_monitor_command": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct{ Command string }
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return g.MonitorCommand(ctx, a.Command)
	},
}

func plain(f func(*machine.Guest, context.Context) error) machineCall {
	return func(ctx context.Context, g *machine.Guest, _ script.Request) (any, error) {
		return none, f(g, ctx)
	}
}
