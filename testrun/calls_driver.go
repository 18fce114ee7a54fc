package testrun

import (
	"context"
	"errors"
	"sync"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
	"vm-prebuild/testrun/startcommand"
)

// testCalls are start_all and what else concerns all machines.
var testCalls = map[string]driverCall{
	"start_all": func(ctx context.Context, d *driver, r script.Request) (any, error) {
		return none, d.bus.Nested("", "start all VMs", func() error {
			return d.eachConfigured(func(m machine.Machine) error {
				return m.Start(ctx, d.guest(m, r.Env).Boot)
			})
		})
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
