package testrun

import (
	"context"
	"fmt"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
)

// sshCalls tell how to log in to a machine from the host.
var sshCalls = map[string]machineCall{
	"ssh_backdoor_command": func(_ context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct {
			Index *int `json:"index"` // context identifier, before NixOS 26.05
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		switch {
		case a.Index != nil:
			return vsockCommand(*a.Index), nil
		case g.SSHCommand == "":
			return nil, fmt.Errorf("machine %q has no SSH backdoor\nhint: set sshBackdoor.enable = true in the test", g.Machine.Name())
		}
		return g.SSHCommand, nil
	},
}

// testSSHCalls do so for all machines. The result is what the script prints;
// "" when there is no backdoor.
var testSSHCalls = map[string]driverCall{
	"dump_machine_ssh": func(_ context.Context, d *driver, r script.Request) (any, error) {
		var a struct {
			Offset *int `json:"offset"` // before NixOS 26.05
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		if a.Offset != nil {
			return kernelBackdoor(d.cfg.Machines, *a.Offset).table(), nil
		}
		return d.ssh.table(), nil
	},
}
