package warm

import (
	"context"
	"errors"
	"sync"
	"time"

	"vm-prebuild/testrun/machine"
)

// Snapshots saves running machines and puts them back, within one test. Guests are
// readied as for a state that is kept: see [Starter]. It implements
// machine.Snapshots.
type Snapshots struct {
	mu     sync.Mutex
	guests map[snapshotName]guest
}

type snapshotName struct{ machine, name string }

// held is a machine that is being saved or put back.
type held struct {
	machine.Held
	name  string
	guest guest
	awake bool // it could not be readied
}

// Save implements machine.Snapshots. Whatever goes wrong, the machines go on as
// they were.
func (s *Snapshots) Save(ctx context.Context, name string, guests ...*machine.Guest) error {
	// A machine that boots is up before others are kept from going on.
	if err := each(guests, func(g *machine.Guest) error { _, err := g.Shell(ctx); return err }); err != nil {
		return err
	}
	all, release, err := s.hold(ctx, guests)
	if err != nil {
		return err
	}
	defer release()
	err = each(all, func(h *held) (err error) {
		if h.guest, err = prepare(ctx, h); err != nil {
			h.awake = true
			return machine.Errorf(h.name, "cannot be saved: %w", err)
		}
		return nil
	})
	undo, cancel := afterwards(ctx)
	defer cancel()
	if err == nil {
		err = each(all, func(h *held) error { return h.Pause(ctx) })
		if err == nil {
			err = each(all, func(h *held) error {
				err := h.Save(ctx, name)
				if err == nil {
					s.keep(h, name)
				}
				return err
			})
		}
		err = errors.Join(err, each(all, func(h *held) error { return h.Unpause(undo) }))
	}
	return errors.Join(err, each(all, func(h *held) error {
		if h.guest.Program == "" {
			return nil // nothing has been done to it
		}
		if h.awake {
			if err := h.guest.sleep(undo, h); err != nil {
				return err
			}
		}
		return h.guest.goOn(undo, h)
	}))
}

// Restore implements machine.Snapshots.
func (s *Snapshots) Restore(ctx context.Context, name string, guests ...*machine.Guest) error {
	if err := each(guests, func(g *machine.Guest) error {
		if !g.Machine.Running() {
			return machine.Errorf(g.Machine.Name(), "cannot be restored: %w", &machine.NoSnapshotError{Name: name})
		}
		return nil
	}); err != nil {
		return err
	}
	all, release, err := s.hold(ctx, guests)
	if err != nil {
		return err
	}
	defer release()
	err = each(all, func(h *held) error {
		if !h.Has(name) {
			return machine.Errorf(h.name, "cannot be restored: %w", &machine.NoSnapshotError{Name: name})
		}
		h.guest = s.kept(h, name)
		return nil
	})
	if err != nil {
		return err
	}
	err = each(all, func(h *held) error { return h.Pause(ctx) })
	if err == nil {
		err = each(all, func(h *held) error { return h.Load(ctx, name) })
	}
	if err != nil {
		undo, cancel := afterwards(ctx)
		defer cancel()
		return errors.Join(err, each(all, func(h *held) error { return h.Unpause(undo) }))
	}
	return each(all, func(h *held) error {
		if err := h.Unpause(ctx); err != nil {
			return err
		}
		err := h.guest.wake(ctx, h)
		if err == nil {
			err = h.guest.runHook(ctx, h)
		}
		if err != nil {
			return machine.Errorf(h.name, "restoring %q: %w", name, err)
		}
		return nil
	})
}

// Drop implements machine.Snapshots.
func (s *Snapshots) Drop(ctx context.Context, name string, guests ...*machine.Guest) error {
	return each(guests, func(g *machine.Guest) error {
		if !g.Machine.Running() {
			return nil // and what was saved is gone with it
		}
		all, release, err := s.hold(ctx, []*machine.Guest{g})
		if err != nil {
			return err
		}
		defer release()
		s.mu.Lock()
		delete(s.guests, snapshotName{g.Machine.Name(), name})
		s.mu.Unlock()
		return all[0].Drop(ctx, name)
	})
}

// undoLimit is how long machines have to go on once the test is over, or whoever
// wanted them saved has lost patience.
const undoLimit = 5 * time.Second

// afterwards is a context for undoing what was done under another.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	undo, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(undoLimit, cancel) })
	return undo, func() { stop(); cancel() }
}

// hold takes all machines, or none.
func (s *Snapshots) hold(ctx context.Context, guests []*machine.Guest) ([]*held, func(), error) {
	all := make([]*held, len(guests))
	release := func() {
		for _, h := range all {
			if h != nil {
				h.Release()
			}
		}
	}
	err := eachOf(len(guests), func(i int) error {
		m := guests[i].Machine
		snapshotter, ok := m.(machine.Snapshotter)
		if !ok {
			return machine.Errorf(m.Name(), "cannot be saved")
		}
		h, err := snapshotter.Hold(ctx)
		if err != nil {
			return err
		}
		all[i] = &held{Held: h, name: m.Name()}
		return nil
	})
	if err != nil {
		release()
		return nil, nil, err
	}
	return all, release, nil
}

func (s *Snapshots) keep(h *held, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.guests == nil {
		s.guests = map[snapshotName]guest{}
	}
	s.guests[snapshotName{h.name, name}] = h.guest
}

func (s *Snapshots) kept(h *held, name string) guest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.guests[snapshotName{h.name, name}]
}

// each calls f for all at once and returns what went wrong.
func each[T any](all []T, f func(T) error) error {
	return eachOf(len(all), func(i int) error { return f(all[i]) })
}

func eachOf(n int, f func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
