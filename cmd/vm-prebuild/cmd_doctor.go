package main

import (
	"context"
	"errors"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/prebuild/doctor"
)

type doctorCommand struct {
	JSON bool `name:"json" help:"Print JSON instead of text."`
}

// Examples are shown by --help.
func (doctorCommand) Examples() []cli.Example {
	return []cli.Example{
		{Text: "What is there to mend?", Command: "vm-prebuild doctor"},
		{Text: "End a CI job early, on a machine that cannot run tests", Command: "vm-prebuild doctor || exit"},
		{Text: "Does KVM work?", Command: `vm-prebuild doctor --json | jq -r '.checks[] | select(.check == "kvm").state'`},
	}
}

// Run examines this machine.
func (c *doctorCommand) Run(ctx context.Context, out *cli.IO) error {
	report := doctor.Examine(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	write := func() error { return report.WriteText(out.Stdout) }
	if c.JSON {
		write = func() error { return out.JSON(report) }
	}
	if err := write(); err != nil {
		return err
	}
	if !report.CanRun {
		return cli.WithExitCode(cli.ExitFailed, errors.New("this machine lacks something that VM tests need"))
	}
	return nil
}
