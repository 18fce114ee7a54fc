package testrun

import (
	"context"
	"fmt"
	"strings"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
	"vm-prebuild/testrun/vlan"
)

// vlanCalls disturb the VLANs and count what goes through them.
var vlanCalls = map[string]driverCall{
	"vlan_set_loss": vlanCall(func(d *driver, v *vlan.VLAN, r script.Request) (any, error) {
		var a struct {
			Loss    *float64 `json:"loss"`
			Machine string   `json:"machine"`
		}
		where, err := d.cable(r, &a, &a.Machine)
		if err != nil {
			return nil, err
		}
		if a.Loss == nil || !(*a.Loss >= 0 && *a.Loss <= 1) {
			return nil, assertionf("vlan%d.set_loss: loss is to be a number from 0 to 1", v.Number())
		}
		d.logFault(v, fmt.Sprintf("%g %% of the frames are lost%s", *a.Loss*100, where))
		return none, v.SetLoss(a.Machine, *a.Loss)
	}),
	"vlan_set_delay": vlanCall(func(d *driver, v *vlan.VLAN, r script.Request) (any, error) {
		var a struct {
			Delay   duration `json:"delay"`
			Jitter  duration `json:"jitter"`
			Machine string   `json:"machine"`
		}
		where, err := d.cable(r, &a, &a.Machine)
		if err != nil {
			return nil, err
		}
		if a.Delay.Seconds == nil || *a.Delay.Seconds < 0 || a.Jitter.Seconds != nil && *a.Jitter.Seconds < 0 {
			return nil, assertionf("vlan%d.set_delay: delay and jitter are to be numbers of seconds that are not negative", v.Number())
		}
		delay, jitter := a.Delay.or(0), a.Jitter.or(0)
		d.logFault(v, fmt.Sprintf("frames are delayed by %v ± %v%s", delay, jitter, where))
		return none, v.SetDelay(a.Machine, delay, jitter)
	}),
	"vlan_partition": vlanCall(func(d *driver, v *vlan.VLAN, r script.Request) (any, error) {
		var a struct {
			Groups [][]string `json:"groups"`
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		var text strings.Builder
		for _, group := range a.Groups {
			for _, name := range group {
				if _, err := d.machine(name); err != nil {
					return nil, assertionf("%s: %v", r.Method, err)
				}
			}
			text.WriteString(" [" + strings.Join(group, ", ") + "]")
		}
		if err := v.Partition(a.Groups); err != nil {
			return nil, assertionf("vlan%d.partition: %v", v.Number(), err)
		}
		d.logFault(v, "divided into"+text.String())
		return none, nil
	}),
	"vlan_heal": vlanCall(func(d *driver, v *vlan.VLAN, _ script.Request) (any, error) {
		v.Heal()
		d.logFault(v, "no faults any more")
		return none, nil
	}),
	"vlan_stats": vlanCall(func(_ *driver, v *vlan.VLAN, _ script.Request) (any, error) {
		return v.Traffic(), nil
	}),
}

// vlanCall finds the VLAN that a call is for.
func vlanCall(f func(*driver, *vlan.VLAN, script.Request) (any, error)) driverCall {
	return func(_ context.Context, d *driver, r script.Request) (any, error) {
		var a struct {
			VLAN *int `json:"vlan"`
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		if a.VLAN == nil {
			return nil, fmt.Errorf("%s does not say which VLAN it means", r.Method)
		}
		for _, s := range d.vlans {
			if s.Number() != *a.VLAN {
				continue
			}
			hub, ok := s.(*vlan.VLAN)
			if !ok {
				return nil, fmt.Errorf("VLAN %d is a vde_switch: it has neither faults nor counters\nhint: use the built-in hub, without --vlan-backend vde_switch", *a.VLAN)
			}
			return f(d, hub, r)
		}
		return nil, assertionf("%s: the test has no VLAN %d", r.Method, *a.VLAN)
	}
}

// cable decodes the arguments of a call that concerns the cable of one machine,
// whose name is then in *name, or a whole VLAN, and says which in words.
func (d *driver) cable(r script.Request, args any, name *string) (string, error) {
	if err := r.Decode(args); err != nil {
		return "", err
	}
	if *name == vlan.Everywhere {
		return "", nil
	}
	if _, err := d.machine(*name); err != nil {
		return "", assertionf("%s: %v", r.Method, err)
	}
	return " on the cable of " + *name, nil
}

// logFault reports a change of a VLAN's faults, and once how to repeat them.
func (d *driver) logFault(v *vlan.VLAN, text string) {
	d.logSeed.Do(func() {
		d.bus.Log(event.Info, "", fmt.Sprintf("the faults of VLANs are repeated by %s=%d", seedEnv, d.seed))
	})
	d.bus.Log(event.Info, "", fmt.Sprintf("VLAN %d: %s", v.Number(), text))
}

func assertionf(format string, args ...any) error {
	return &machine.AssertionError{Message: fmt.Sprintf(format, args...)}
}
