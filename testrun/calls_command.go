package testrun

import (
	"context"
	"time"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
)

// commandCalls run commands in the guest, or wait for something there.
var commandCalls = map[string]machineCall{
	"execute":              execute,
	"succeed":              commands((*machine.Guest).Succeed),
	"fail":                 commands((*machine.Guest).Fail),
	"wait_until_succeeds":  waitCommand((*machine.Guest).WaitUntilSucceeds),
	"wait_until_fails":     waitCommand((*machine.Guest).WaitUntilFails),
	"wait_for_open_port":   waitPort((*machine.Guest).WaitForOpenPort),
	"wait_for_closed_port": waitPort((*machine.Guest).WaitForClosedPort),
	"wait_for_open_unix_socket": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct {
			Addr     string
			Datagram bool `json:"is_datagram"`
			timeouts
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return none, g.WaitForOpenUnixSocket(ctx, a.Addr, a.Datagram, a.of(g))
	},
	"wait_for_file": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct {
			Filename string
			timeouts
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return none, g.WaitForFile(ctx, a.Filename, a.of(g))
	},
	"sleep": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct {
			Duration duration `json:"duration"`
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return none, g.Sleep(ctx, a.Duration.or(0))
	},
}

func commands(f func(*machine.Guest, context.Context, []string, time.Duration) (string, error)) machineCall {
	return func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct {
			Commands []string
			Timeout  duration
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return f(g, ctx, a.Commands, a.Timeout.or(0))
	}
}

func waitCommand(f func(*machine.Guest, context.Context, string, time.Duration) (string, error)) machineCall {
	return func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct {
			Command string
			timeouts
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return f(g, ctx, a.Command, a.of(g))
	}
}

func waitPort(f func(*machine.Guest, context.Context, string, int, time.Duration) error) machineCall {
	return func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		a := struct {
			Port int
			Addr string
			timeouts
		}{Addr: "localhost"}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return none, f(g, ctx, a.Addr, a.Port, a.of(g))
	}
}

// execute returns [status, output], with the stand-ins of nixpkgs' driver for
// what the script did not want: -1 for the status, (-2, "") for both.
func execute(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
	a := struct {
		Command     string
		CheckReturn bool `json:"check_return"`
		CheckOutput bool `json:"check_output"`
		Timeout     duration
	}{CheckReturn: true, CheckOutput: true}
	if err := r.Decode(&a); err != nil {
		return nil, err
	}
	result, err := g.Execute(ctx, a.Command, a.Timeout.or(0), a.CheckOutput)
	status := result.Status
	switch {
	case err != nil:
		return nil, err
	case !a.CheckOutput:
		status = -2
	case !a.CheckReturn:
		status = -1
	}
	return []any{status, machine.Text(result.Stdout)}, nil
}
