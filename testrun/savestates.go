package testrun

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
	"vm-prebuild/testrun/warm"
)

// SavedState is the state of a machine of a test, from which it can start.
type SavedState struct {
	Machine string `json:"machine"`
	Key     string `json:"key"`
	// There says that the state had been saved before, in which case nothing was booted.
	There   bool    `json:"there"`
	Seconds float64 `json:"seconds"` // that it took
}

// SaveStates boots machines of a test to their ready point and saves their states, all
// at once, unless cfg.Warm.Store has them; of cfg.Warm the mode does not count. No
// machines means all. The test's script is not run, and its path need not lead to one.
//
// The error is a *[ConfigError] when the test is not described right, and a
// *[RunError] with all machines that could not be saved; the others are saved then.
func SaveStates(ctx context.Context, cfg Config, o Options, machines []string) (saved []SavedState, err error) {
	cfg.Warm.Mode, cfg.Warm.Save = warm.Require, true
	for _, name := range machines {
		if !slices.ContainsFunc(cfg.Machines, func(m MachineConfig) bool { return m.Name == name }) {
			return nil, configErrorf("the test has no machine %q\nhint: it has %s", name, strings.Join(cfg.names(), ", "))
		}
	}
	if len(machines) == 0 {
		machines = cfg.names()
	}
	t, err := Open(ctx, cfg, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Close()) }() //nolint:contextcheck // what has begun is ended
	saved = make([]SavedState, len(machines))
	failed := make([]error, len(machines))
	var g errgroup.Group
	for i, name := range machines {
		g.Go(func() error {
			saved[i], failed[i] = t.saveState(ctx, name)
			return nil
		})
	}
	_ = g.Wait() // failed has the errors
	saved = slices.DeleteFunc(saved, func(s SavedState) bool { return s.Key == "" })
	if ctx.Err() != nil {
		return saved, context.Cause(ctx)
	}
	if err := errors.Join(failed...); err != nil {
		return saved, &RunError{Err: err, code: 3}
	}
	return saved, nil
}

func (c *Config) names() (names []string) {
	for _, m := range c.Machines {
		names = append(names, m.Name)
	}
	return names
}

func (t *Test) saveState(ctx context.Context, name string) (SavedState, error) {
	m, err := t.d.machine(name)
	if err != nil {
		return SavedState{}, err
	}
	begin := time.Now()
	starter := warm.NewStarter(t.d.cfg.Warm, t.d.bus)
	key, there, err := starter.SaveState(ctx, m, t.d.guest(m, script.Environment{}).Boot)
	var named *machine.Error
	if err != nil && !errors.As(err, &named) {
		err = machine.Errorf(name, "%w", err)
	}
	if err != nil {
		return SavedState{}, err
	}
	if there {
		t.d.bus.Log(event.Info, name, "its state was there already: "+key)
	}
	return SavedState{Machine: name, Key: key, There: there, Seconds: time.Since(begin).Seconds()}, nil
}
