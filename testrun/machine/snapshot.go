package machine

import (
	"context"
	"fmt"
)

// Snapshotter is a machine that can be put back to what it was earlier in the same
// run. Hold takes the running machine for its caller alone, and waits a moment for
// a command that somebody else runs. Its error is an *[UnsavableError] when the
// machine has something of which a snapshot would be no good.
type Snapshotter interface {
	Hold(ctx context.Context) (Held, error)
}

// Held is a machine that one caller has for itself until Release: all others that
// want its shell wait. With several machines, all are paused before one of them is
// saved or put back, so that none knows of what another has not done yet.
type Held interface {
	Shell
	Streamer
	Sleeper

	// Pause stops the guest, and Unpause lets it go on.
	Pause(ctx context.Context) error
	Unpause(ctx context.Context) error

	// Save keeps, under a name, what a paused guest is: memory, devices and disks.
	// It takes the place of what had that name. The guest's shell must be asleep,
	// and no share of the host's mounted.
	Save(ctx context.Context, name string) error

	// Load makes a paused guest what it was; the error is a *[NoSnapshotError]
	// when this run of the machine has nothing of that name.
	Load(ctx context.Context, name string) error

	// Has says whether this run of the machine has something of that name, and
	// Drop frees what it takes.
	Has(name string) bool
	Drop(ctx context.Context, name string) error

	Release()
}

// NoSnapshotError says that a machine was not saved under a name since it was
// started.
type NoSnapshotError struct{ Name string }

func (e *NoSnapshotError) Error() string {
	return fmt.Sprintf("there is no snapshot %q of this run\nhint: call save(%q) first; what was saved ends with the machine: at shutdown() or crash(), or when it powers off", e.Name, e.Name)
}

// Snapshots saves machines, and puts them back, together. Errors leave machines
// that go on as they were, unless they tell otherwise.
type Snapshots interface {
	// Save boots the machines if need be.
	Save(ctx context.Context, name string, guests ...*Guest) error
	Restore(ctx context.Context, name string, guests ...*Guest) error
	// Drop frees what the snapshots of that name take; machines that have none are
	// not an error.
	Drop(ctx context.Context, name string, guests ...*Guest) error
}

// Save keeps what the machine is now, under a name, until it ends.
func (g *Guest) Save(ctx context.Context, name string) error {
	if err := g.canBeSaved(name); err != nil {
		return err
	}
	return g.nested("saving the machine as "+name, func() error { return g.Snapshots.Save(ctx, name, g) })
}

// Restore makes the machine what it was when it was saved under that name.
func (g *Guest) Restore(ctx context.Context, name string) error {
	if err := g.canBeSaved(name); err != nil {
		return err
	}
	return g.nested("restoring the machine to "+name, func() error { return g.Snapshots.Restore(ctx, name, g) })
}

func (g *Guest) canBeSaved(name string) error {
	if name == "" {
		return assertionf("the name of a snapshot is empty")
	}
	if g.Snapshots == nil {
		return Errorf(g.Machine.Name(), "cannot be saved")
	}
	return nil
}
