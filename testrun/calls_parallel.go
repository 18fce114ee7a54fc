package testrun

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
)

// commandResult is a command that has ended, as scripts get it.
type commandResult struct {
	Status int    `json:"status"`
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
}

func newCommandResult(r machine.Result) commandResult {
	return commandResult{Status: r.Status, Stdout: machine.Text(r.Stdout), Stderr: machine.Text(r.Stderr)}
}

// parallelCalls run commands and tell all that came of them.
var parallelCalls = map[string]machineCall{
	"run": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct {
			Command string
			Timeout duration
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		result, err := g.Run(ctx, a.Command, a.Timeout.or(0))
		if err != nil {
			return nil, err
		}
		return newCommandResult(result), nil
	},
	"parallel": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct {
			Commands []string
			Timeout  duration
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		results, err := g.Parallel(ctx, a.Commands, a.Timeout.or(0))
		if err != nil {
			return nil, err
		}
		all := make([]commandResult, len(results))
		for i, result := range results {
			all[i] = newCommandResult(result)
		}
		return all, nil
	},
}

// severalCalls run the same on several machines at once.
var severalCalls = map[string]driverCall{
	"succeed_all": func(ctx context.Context, d *driver, r script.Request) (any, error) {
		var a struct {
			Machines []string // none: all of the test
			Command  string
			Timeout  duration
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		if a.Machines == nil {
			for _, m := range d.cfg.Machines {
				a.Machines = append(a.Machines, m.Name)
			}
		}
		return onEach(d, a.Machines, func(m machine.Machine) (string, error) {
			return d.guest(m, r.Env).Succeed(ctx, []string{a.Command}, a.Timeout.or(0))
		})
	},
}

// onEach calls f for the named machines at once and returns the results by
// name. The error tells of all machines that failed.
func onEach[T any](d *driver, names []string, f func(machine.Machine) (T, error)) (map[string]T, error) {
	machines := map[string]machine.Machine{}
	for _, name := range names {
		m, err := d.machine(name)
		if err != nil {
			return nil, err
		}
		machines[name] = m
	}
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		results = map[string]T{}
		failed  = map[string]error{}
	)
	for name, m := range machines {
		wg.Go(func() {
			result, err := f(m)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed[name] = err
			} else {
				results[name] = result
			}
		})
	}
	wg.Wait()
	if len(failed) > 0 {
		return nil, newMachinesError(failed)
	}
	return results, nil
}

// machinesError says what went wrong on several machines. It is the failure of
// an expectation only if that is true of each.
type machinesError struct {
	errs []error
	kind script.Kind
}

func newMachinesError(failed map[string]error) *machinesError {
	e := &machinesError{kind: script.KindAssertion}
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		err := failed[name]
		if kind := script.KindOf(err); kind != script.KindAssertion {
			e.kind = kind
		}
		var own *machine.Error // names its machine itself
		if !errors.As(err, &own) {
			err = fmt.Errorf("machine %q: %w", name, err)
		}
		e.errs = append(e.errs, err)
	}
	return e
}

func (e *machinesError) Error() string      { return errors.Join(e.errs...).Error() }
func (e *machinesError) Unwrap() []error    { return e.errs }
func (e *machinesError) ScriptKind() string { return string(e.kind) }
