package testrun

import (
	"context"
	"encoding/json"
	"time"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
)

// qmpEventTimeout is how long qmp_next_event waits unless the script says
// otherwise: as long as wait_for_qmp_event.
const qmpEventTimeout = 10 * time.Minute

// qemuCalls speak to QEMU, and do what else concerns virtual hardware.
var qemuCalls = map[string]machineCall{
	"qmp_send": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct {
			Command string
			Args    json.RawMessage
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return g.QMPSend(ctx, a.Command, a.Args)
	},
	"qmp_next_event": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct{ Timeout duration }
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return g.QMPNextEvent(ctx, a.Timeout.or(qmpEventTimeout))
	},
	"forward_port": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		a := struct {
			HostPort  int `json:"host_port"`
			GuestPort int `json:"guest_port"`
		}{8080, 80}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return none, g.ForwardPort(ctx, a.HostPort, a.GuestPort)
	},
	"switch_root": plain((*machine.Guest).SwitchRoot),
}
