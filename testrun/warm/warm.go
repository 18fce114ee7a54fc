// Package warm starts machines from the state of machines that have booted
// before: their memory, their devices and their disk at a ready point. A [Starter]
// does so for one machine and falls back to booting it; a [Store] keeps the states
// in a directory.
//
// How a backend saves and restores a machine is its own business
// (machine.Saver, machine.Restorer). This package decides which state fits, sees
// that nothing is restored that is not what was saved, and readies the guest before
// the one and after the other. docs/warm.md describes the format of the states.
package warm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
)

// Mode says whether machines start from saved states.
type Mode string

// The modes.
const (
	// Off boots every machine.
	Off Mode = "off"
	// Auto restores a machine when there is a state that fits, and boots it
	// otherwise.
	Auto Mode = "auto"
	// Require is Auto, but for a machine that would have to boot: that is an error.
	Require Mode = "require"
)

// Options say how machines are started.
type Options struct {
	Mode  Mode
	Save  bool  // save the state of a machine for which there is none
	Ready Ready // when that is; the zero value is as soon as the shell answers
	Store Store
	From  []string // directories of packed states, from which the store is filled
}

// Enabled says whether machines may start from saved states.
func (o Options) Enabled() bool { return o.Mode != "" && o.Mode != Off }

// Starter starts one machine, the first time from a saved state. It implements
// machine.Starter.
type Starter struct {
	Options
	Bus *event.Bus

	turn    chan struct{} // holds one token: whose turn it is to start the machine
	started bool          // guarded by turn
	held    *os.File      // keeps the state that it has started from; guarded by turn
}

// NewStarter returns what starts one machine. Close ends it.
func NewStarter(o Options, bus *event.Bus) *Starter {
	s := &Starter{Options: o, Bus: bus, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

// Close lets go of the state that the machine has started from. The machine must
// not start any more.
func (s *Starter) Close() error {
	select {
	case <-s.turn:
		if s.held != nil {
			return s.held.Close()
		}
	default: // It is still starting, in vain: the end of this process lets go.
	}
	return nil
}

// Start implements machine.Starter.
func (s *Starter) Start(ctx context.Context, m machine.Machine, o machine.StartOptions) error {
	select {
	case <-s.turn:
		defer func() { s.turn <- struct{}{} }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if s.started || m.Running() {
		return m.Start(ctx, o)
	}
	begin := time.Now()
	saved, err := s.warm(ctx, m, o)
	switch {
	case err == nil:
		s.started = true
		s.Bus.Say(m.Name(), fmt.Sprintf("started warm, from the state of %s, in %.2f seconds", saved.Local().Format(time.DateTime), time.Since(begin).Seconds()))
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case s.Mode == Require:
		return machine.Errorf(m.Name(), "cannot start warm: %w", err)
	}
	s.Bus.Log(event.Info, m.Name(), "starts cold: "+firstLine(err))
	err = m.Start(ctx, o)
	s.started = err == nil
	return err
}

// firstLine is an error without the console that it may carry.
func firstLine(err error) string {
	text, rest, _ := strings.Cut(err.Error(), "\n")
	for line := range strings.Lines(rest) {
		if hint, ok := strings.CutPrefix(line, "hint: "); ok {
			return text + " (hint: " + strings.TrimSpace(hint) + ")"
		}
	}
	return text
}

// backend is a machine that can be saved and restored.
type backend interface {
	machine.Machine
	machine.Saver
	machine.Restorer
}

// warm restores a machine, and says when its state was saved.
func (s *Starter) warm(ctx context.Context, m machine.Machine, o machine.StartOptions) (time.Time, error) {
	b, inputs, err := s.inputs(m, o)
	if err != nil {
		return time.Time{}, err
	}
	key := keyOf(inputs)
	state, err := s.open(ctx, m.Name(), key)
	if err == nil {
		err = s.restore(ctx, b, o, state)
	}
	var damage *damageError
	var mismatch *machine.MismatchError
	switch {
	case err == nil:
		return state.manifest.Saved, nil
	case ctx.Err() != nil:
		return time.Time{}, err
	case errors.Is(err, errNoState):
		if reason := s.Store.explain(inputs, s.From); reason != "" {
			err = fmt.Errorf("%w: %s", err, reason)
		}
	case state != nil && (errors.As(err, &damage) || s.Save && errors.As(err, &mismatch)):
		if failed := s.Store.remove(state, key); failed != nil {
			return time.Time{}, errors.Join(err, failed)
		}
	default:
		return time.Time{}, err // which need not happen again
	}
	if !s.Save {
		return time.Time{}, err
	}
	s.Bus.Say(m.Name(), firstLine(err)+"; it boots to be saved")
	if err := s.save(ctx, b, o, key, inputs); err != nil {
		return time.Time{}, err
	}
	// The test runs on a restored machine this time, too: what it finds does not
	// depend on who came first.
	if state, err = s.Store.open(ctx, key); err != nil {
		return time.Time{}, err
	}
	if err := s.restore(ctx, b, o, state); err != nil {
		return time.Time{}, fmt.Errorf("the state that was just saved: %w", err)
	}
	return state.manifest.Saved, nil
}

// inputs are what the state of a machine depends on.
func (s *Starter) inputs(m machine.Machine, o machine.StartOptions) (backend, []machine.Input, error) {
	b, ok := m.(backend)
	if !ok {
		return nil, nil, errors.New("its kind of machine cannot be saved")
	}
	inputs, err := b.Inputs(o)
	if err != nil {
		return nil, nil, err
	}
	return b, append(inputs,
		machine.Input{Name: "ready point", Value: s.Ready.String()},
		machine.Input{Name: "waking program", Value: sha256Of(wakeProgram)},
		machine.Input{Name: "format", Value: fmt.Sprint(format)}), nil
}

// open opens the state of a key, which may have to be unpacked for it.
func (s *Starter) open(ctx context.Context, name, key string) (*state, error) {
	st, err := s.Store.open(ctx, key)
	var damage *damageError
	if err == nil || len(s.From) == 0 || !errors.Is(err, errNoState) && !errors.As(err, &damage) {
		return st, err
	}
	begin := time.Now()
	from, unpacking := s.Store.fetch(ctx, key, s.From)
	switch {
	case errors.Is(unpacking, errNoState):
		return st, err
	case unpacking != nil:
		return nil, unpacking
	}
	s.Bus.Say(name, fmt.Sprintf("unpacked its state from %s in %.2f seconds", from, time.Since(begin).Seconds()))
	return s.Store.open(ctx, key)
}

// SaveState boots a machine that does not run and saves its state, unless the store
// has it already. The machine does not run then.
func (s *Starter) SaveState(ctx context.Context, m machine.Machine, o machine.StartOptions) (key string, there bool, err error) {
	b, inputs, err := s.inputs(m, o)
	if err != nil {
		return "", false, err
	}
	key = keyOf(inputs)
	st, err := s.open(ctx, m.Name(), key)
	var damage *damageError
	switch {
	case err == nil:
		return key, true, nil
	case errors.As(err, &damage) && st != nil:
		if err := s.Store.remove(st, key); err != nil {
			return "", false, err
		}
	case ctx.Err() != nil:
		return "", false, context.Cause(ctx)
	}
	return key, false, s.save(ctx, b, o, key, inputs)
}

// restore starts a machine from a state and readies its guest.
func (s *Starter) restore(ctx context.Context, b backend, o machine.StartOptions, st *state) error {
	held, err := st.hold()
	if err != nil {
		return err
	}
	err = b.Restore(ctx, o, st.files(), st.manifest.Hardware, func(ctx context.Context, sh machine.Shell) error {
		if err := st.manifest.Guest.wake(ctx, sh); err != nil {
			return err
		}
		// Whoever replaced a file did so before QEMU had opened it, or after.
		return st.unchanged()
	})
	if err == nil {
		var sh machine.Shell
		if sh, err = b.Shell(ctx); err == nil {
			err = st.manifest.Guest.runHook(ctx, sh)
		}
		if err != nil {
			err = errors.Join(err, b.Release())
		}
	}
	if err != nil {
		return errors.Join(err, held.Close())
	}
	s.held = held
	return nil
}

// save boots a machine and saves its state at the ready point. The machine does
// not run then.
func (s *Starter) save(ctx context.Context, b backend, o machine.StartOptions, key string, inputs []machine.Input) (err error) {
	draft, err := s.Store.draft(key)
	if err != nil {
		return fmt.Errorf("saving: %w", err)
	}
	defer draft.discard()
	o, end, err := alone(b, o)
	if err != nil {
		return fmt.Errorf("booting it alone, to be saved: %w", err)
	}
	defer func() { err = errors.Join(err, end()) }()
	if err := b.StartSavable(ctx, o, draft.files()); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Release())
		}
	}()
	g := &machine.Guest{Machine: b, Bus: s.Bus, Boot: o}
	if err := s.Ready.await(ctx, g); err != nil {
		return fmt.Errorf("its ready point, %s: %w", s.Ready, err)
	}
	sh, err := g.Shell(ctx)
	if err != nil {
		return err
	}
	guest, err := prepare(ctx, sh)
	if err != nil {
		return err
	}
	begin := time.Now()
	hardware, err := b.Save(ctx)
	if err != nil {
		return err
	}
	if err := draft.commit(ctx, manifest{Inputs: inputs, Hardware: hardware, Guest: guest, Saved: time.Now().UTC()}); err != nil {
		return fmt.Errorf("saving: %w", err)
	}
	s.Bus.Say(b.Name(), fmt.Sprintf("saved its state in %.2f seconds", time.Since(begin).Seconds()))
	return nil
}
