package machine

import (
	"context"
	"encoding/json"
)

// Starter starts a machine in another way than Start of [Machine] does, which is
// its last resort: from a saved state, for one.
type Starter interface {
	Start(ctx context.Context, m Machine, o StartOptions) error
}

// StateFiles are the files that the state of a machine is made of. All are
// absolute and have no symbolic link in their directories.
type StateFiles struct {
	RAM     string // the guest's memory; sparse
	Disk    string // what the guest has written to its disk; not there without one
	Devices string // the state of CPUs and devices
}

// Input is something that a machine's state depends on.
type Input struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// HostCPUInput is the name of the input that only machines have which run on the
// host's own CPU: their states are of use on hosts with the same one.
const HostCPUInput = "host CPU"

// Hardware describes, to the backend that it comes from, what a saved machine
// consisted of.
type Hardware = json.RawMessage

// Capabilities of backends whose machines can be saved.
type (
	// Saver boots a machine that can be saved. StartSavable is Start with the
	// machine's memory and disk in f, whose files must not be there; it fails
	// with an *[UnsavableError] before the guest boots when this machine has
	// something that cannot be saved. Save stops the guest, writes the state of
	// its devices and ends the machine: the files are complete then. Nothing may
	// use the guest's shell meanwhile.
	Saver interface {
		StartSavable(ctx context.Context, o StartOptions, f StateFiles) error
		Save(ctx context.Context) (Hardware, error)
	}
	// Restorer starts a machine from a saved state. Inputs is what the state
	// depends on, as far as that is known before the machine runs: states are of
	// use only where all inputs are the same. Restore fails, and leaves a machine
	// that does not run, when the state is not for this hardware. It does not
	// change f. Before it returns it calls wake with the guest's shell, which is up;
	// an error of wake's makes the restoring fail.
	Restorer interface {
		Inputs(o StartOptions) ([]Input, error)
		Restore(ctx context.Context, o StartOptions, f StateFiles, h Hardware, wake func(context.Context, Shell) error) error
	}
)

// MismatchError says how a machine differs from the one whose state was saved.
type MismatchError struct{ Reason string }

func (e *MismatchError) Error() string { return e.Reason }

// UnsavableError says why a machine cannot be saved.
type UnsavableError struct{ Reason string }

func (e *UnsavableError) Error() string { return "it cannot be saved: " + e.Reason }

// Start starts the machine, by its Starter if it has one.
func (g *Guest) Start(ctx context.Context, o StartOptions) error {
	if g.Starter != nil {
		return g.Starter.Start(ctx, g.Machine, o)
	}
	return g.Machine.Start(ctx, o)
}
