package testrun

import (
	"context"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
)

// unitCalls concern systemd units.
var unitCalls = map[string]machineCall{
	"wait_for_unit": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		a, err := unitArgs(r)
		if err != nil {
			return nil, err
		}
		return none, g.WaitForUnit(ctx, a.Unit, a.User, a.Timeout.or(machine.DefaultTimeout))
	},
	"get_unit_info": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		a, err := unitArgs(r)
		if err != nil {
			return nil, err
		}
		return g.UnitInfo(ctx, a.Unit, a.User)
	},
	"get_unit_property": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		a, err := unitArgs(r)
		if err != nil {
			return nil, err
		}
		return g.UnitProperty(ctx, a.Unit, a.Property, a.User)
	},
	"require_unit_state": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		a, err := unitArgs(r)
		if err != nil {
			return nil, err
		}
		return none, g.RequireUnitState(ctx, a.Unit, a.RequireState)
	},
	"systemctl": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		a, err := unitArgs(r)
		if err != nil {
			return nil, err
		}
		return statusAndOutput(g.Systemctl(ctx, a.Query, a.User))
	},
	"start_job": job("start"),
	"stop_job":  job("stop"),
}

func statusAndOutput(status int, output string, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return []any{status, output}, nil
}

// job starts or stops a unit, without looking at the result.
func job(verb string) machineCall {
	return func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct{ Job, User string }
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return statusAndOutput(g.Systemctl(ctx, verb+" "+a.Job, a.User))
	}
}

type unit struct {
	Unit, User, Property string
	RequireState         string `json:"require_state"`
	Query                string `json:"q"`
	Timeout              duration
}

func unitArgs(r script.Request) (unit, error) {
	a := unit{RequireState: "active"}
	err := r.Decode(&a)
	return a, err
}
