package starlark_test

import (
	"context"
	"fmt"
	"io"
	"testing"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/script"
	"vm-prebuild/testrun/script/starlark"
)

// fine is a machine where every command succeeds at once.
type fine struct{}

func (fine) Call(context.Context, script.Request) (any, error) { return "", nil }

// What one call of a script costs the driver.
func BenchmarkCall(b *testing.B) {
	path := writeScript(b, fmt.Sprintf("for _ in range(%d):\n    machine.succeed(\"true\")\n", b.N))
	s := script.Session{ScriptPath: path, Machines: []script.MachineInfo{machineInfo("machine")}, Bus: event.NewBus(), Caller: fine{}}
	b.ReportAllocs()
	if err := (starlark.Host{Stdout: io.Discard}).Run(b.Context(), s); err != nil {
		b.Fatal(err)
	}
}
