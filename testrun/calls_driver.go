package testrun

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
	"vm-prebuild/testrun/startcommand"
)

// testCalls are start_all and what else concerns all machines.
var testCalls = map[string]driverCall{
	"start_all": func(ctx context.Context, d *driver, r script.Request) (any, error) {
		return none, d.startAll(ctx, r.Env)
	},
	"join_all": func(ctx context.Context, d *driver, r script.Request) (any, error) {
		return none, d.bus.Nested("", "wait for all VMs to finish", func() error {
			err := d.eachConfigured(func(m machine.Machine) error {
				return d.guest(m, r.Env).WaitForShutdown(ctx)
			})
			d.stopTimer()
			return err
		})
	},
	"create_machine": func(_ context.Context, d *driver, r script.Request) (any, error) {
		var a struct {
			StartCommand string `json:"start_command"`
			Name         string `json:"name"`
			Keep         bool   `json:"keep_machine_state"`
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		command := startcommand.Command{Line: a.StartCommand}
		if err := command.Check(); err != nil {
			return nil, err
		}
		if a.Name == "" {
			a.Name = command.Name()
		}
		m, err := d.addMachine(a.Name, command, a.Keep)
		if err != nil {
			return nil, err
		}
		if d.ssh != nil {
			d.bus.Log(event.Warning, a.Name, "the SSH backdoor does not reach machines of create_machine")
		}
		return info(m), nil
	},
	"serial_stdout": func(_ context.Context, d *driver, r script.Request) (any, error) {
		var a struct {
			On bool `json:"on"`
		}
		err := r.Decode(&a)
		if err == nil {
			d.serial.Store(a.On)
		}
		return none, err
	},
}

// eachConfigured calls f for every machine of the test at once.
func (d *driver) eachConfigured(f func(machine.Machine) error) error {
	var wg sync.WaitGroup
	failed := make([]error, len(d.cfg.Machines))
	for i, m := range d.cfg.Machines {
		wg.Go(func() {
			m, err := d.machine(m.Name)
			if err == nil {
				err = f(m)
			}
			failed[i] = err
		})
	}
	wg.Wait()
	return errors.Join(failed...)
}

// startAll starts all machines of the test at once.
func (d *driver) startAll(ctx context.Context, env script.Environment) error {
	return d.bus.Nested("", "start all VMs", func() error {
		var mu sync.Mutex
		failed := map[string]error{}
		_ = d.eachConfigured(func(m machine.Machine) error {
			g := d.guest(m, env)
			err := g.Start(ctx, g.Boot)
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[m.Name()] = err
			}
			return nil
		})
		if len(failed) == 0 {
			return nil
		}
		return &startError{failed}
	})
}

// startError says which machines could not be started, in the words of nixpkgs'
// driver.
type startError struct {
	failed map[string]error
}

func (e *startError) Error() string {
	text := "Failed to start the following machines:"
	for _, name := range slices.Sorted(maps.Keys(e.failed)) {
		text += fmt.Sprintf("\n%s: %v", name, e.failed[name])
	}
	return text
}

// Unwrap returns the machines' errors.
func (e *startError) Unwrap() []error { return slices.Collect(maps.Values(e.failed)) }
