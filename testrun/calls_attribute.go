package testrun

import (
	"context"
	"encoding/json"
	"fmt"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
)

type attribute struct {
	Name  string
	Value json.RawMessage
}

func attributeArgs(r script.Request) (attribute, error) {
	var a attribute
	err := r.Decode(&a)
	return a, err
}

// getAttribute returns what scripts read of a machine's state.
func getAttribute(_ context.Context, g *machine.Guest, r script.Request) (any, error) {
	a, err := attributeArgs(r)
	if err != nil {
		return nil, err
	}
	switch a.Name {
	case "booted":
		return g.Machine.Running(), nil
	case "connected":
		return g.Connected(), nil
	case "pid":
		if p, ok := g.Machine.(machine.HasProcess); ok && p.PID() != 0 {
			return p.PID(), nil
		}
		return none, nil
	case "last_pid":
		if p, ok := g.Machine.(machine.HasProcess); ok && p.LastPID() != 0 {
			return p.LastPID(), nil
		}
		return none, nil
	case "returncode":
		// How a process ended is told when it happens, by the call that meets
		// it; later it only counts that it did.
		if g.Machine.Running() {
			return none, nil
		}
		return 0, nil
	}
	return nil, fmt.Errorf("machine %q: attribute %q cannot be read", g.Machine.Name(), a.Name)
}

// setAttribute does what assigning to an attribute does to nixpkgs' machines.
func setAttribute(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
	a, err := attributeArgs(r)
	if err != nil {
		return nil, err
	}
	switch value := string(a.Value); {
	case a.Name == "connected" && value == "false":
		return none, g.Disconnect()
	case a.Name == "booted" && value == "false":
		// The machine has ended, says the script, and may be started again.
		if !g.Machine.Running() {
			_ = g.Machine.Wait(ctx) // an unexpected end is what the script excuses
			return none, nil
		}
		return none, g.Disconnect()
	case a.Name == "connected" || a.Name == "booted":
		return none, nil // true is what the driver finds out itself
	}
	mover, ok := g.Machine.(machine.Mover)
	if !ok {
		return nil, fmt.Errorf("machine %q: attribute %q cannot be set", g.Machine.Name(), a.Name)
	}
	var path string
	if err := json.Unmarshal(a.Value, &path); err != nil {
		return nil, fmt.Errorf("machine %q: attribute %q: %w", g.Machine.Name(), a.Name, err)
	}
	dirs := g.Machine.Dirs()
	switch a.Name {
	case "state_dir":
		dirs.State = path
	case "shared_dir":
		dirs.Shared = path
	case "out_dir":
		dirs.Out = path
	default:
		return nil, fmt.Errorf("machine %q: attribute %q cannot be set", g.Machine.Name(), a.Name)
	}
	mover.SetDirs(dirs)
	return none, nil
}
