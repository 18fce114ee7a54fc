package testrun

import (
	"context"

	"vm-prebuild/testrun/efivars"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
)

// efiCalls concern the variables of a machine's UEFI firmware. On the wire a
// variable has a name, a guid, attributes (a number) and data (base64).
var efiCalls = map[string]machineCall{
	"read_efi_vars": func(_ context.Context, g *machine.Guest, _ script.Request) (any, error) {
		return g.ReadEFIVars()
	},
	"write_efi_vars": func(_ context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct{ Variables []efivars.Variable }
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return none, g.WriteEFIVars(a.Variables)
	},
	"create_efi_vars": func(_ context.Context, g *machine.Guest, _ script.Request) (any, error) {
		return none, g.CreateEFIVars()
	},
	"dump_efi_vars": func(_ context.Context, g *machine.Guest, _ script.Request) (any, error) {
		return g.DumpEFIVars()
	},
}
