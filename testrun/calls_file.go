package testrun

import (
	"context"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
)

// fileCalls carry files between the guest and the host.
var fileCalls = map[string]machineCall{
	"copy_from_host": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct{ Source, Target string }
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return none, g.CopyFromHost(ctx, r.Env.Dir, a.Source, a.Target)
	},
	"copy_from_host_via_shell": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct{ Source, Target string }
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return none, g.CopyFromHostViaShell(ctx, r.Env.Dir, a.Source, a.Target)
	},
	"copy_from_machine": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct {
			Source    string `json:"source"`
			TargetDir string `json:"target_dir"`
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return none, g.CopyFromMachine(ctx, a.Source, a.TargetDir)
	},
	"screenshot": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct{ Filename string }
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return g.Screenshot(ctx, r.Env.Dir, a.Filename)
	},
}
