package testrun

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
)

// Call implements script.Caller.
func (d *driver) Call(ctx context.Context, r script.Request) (any, error) {
	d.rollbacks.note(r)
	if r.Machine == "" {
		call, ok := driverCalls[r.Method]
		if !ok {
			return nil, fmt.Errorf("the driver has no operation %q", r.Method)
		}
		return call(ctx, d, r)
	}
	call, ok := machineCalls[r.Method]
	if !ok {
		return nil, fmt.Errorf("machines have no operation %q", r.Method)
	}
	m, err := d.machine(r.Machine)
	if err != nil {
		return nil, err
	}
	g := d.guest(m, r.Env)
	g.Between = r.Callback
	return call(ctx, g, r)
}

// duration is an optional number of seconds.
type duration struct {
	Seconds *float64
}

func (t *duration) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &t.Seconds)
}

// or returns the duration, or otherwise where the script gave none.
func (t duration) or(otherwise time.Duration) time.Duration {
	if t.Seconds == nil {
		return otherwise
	}
	return time.Duration(min(max(*t.Seconds, 0), maxSeconds) * float64(time.Second))
}

// timeouts reads the time-outs of a wait.
type timeouts struct {
	Timeout duration
	Attempt duration `json:"attempt_timeout"`
}

// of sets how long g waits for an attempt and returns how long in all.
func (t timeouts) of(g *machine.Guest) time.Duration {
	g.Attempt = t.Attempt.or(0)
	return t.Timeout.or(machine.DefaultTimeout)
}

// none stands for a result that a script does not see.
var none any

type (
	driverCall  = func(context.Context, *driver, script.Request) (any, error)
	machineCall = func(context.Context, *machine.Guest, script.Request) (any, error)
)

// driverCalls are the operations of the test itself.
var driverCalls = merged(testCalls, vlanCalls, severalCalls, testSSHCalls, rollbackCalls)

// machineCalls are the operations of a machine. Their arguments have the names
// that they have in nixpkgs' Python driver.
var machineCalls = merged(lifeCycleCalls, commandCalls, unitCalls, fileCalls, parallelCalls,
	screenCalls, consoleCalls, qemuCalls, efiCalls, sshCalls, snapshotCalls)

// merged is the union of tables that have no name in common.
func merged[C any](tables ...map[string]C) map[string]C {
	all := map[string]C{}
	for _, t := range tables {
		maps.Copy(all, t)
	}
	return all
}
