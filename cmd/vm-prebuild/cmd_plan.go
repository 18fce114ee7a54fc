package main

import (
	"context"
	"errors"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/prebuild"
)

type planCommand struct {
	nixOptions
	JSON        bool   `name:"json" help:"Print JSON instead of a table."`
	Installable string `arg:"" optional:"" help:"A test or a set with tests. Default: .#checks.<system>."`
}

// Run prints the plan.
func (c *planCommand) Run(ctx context.Context, out *cli.IO) error {
	if c.Installable == "" {
		c.Installable = ".#checks." + prebuild.System()
	}
	plan, err := c.nix(out).Plan(ctx, c.Installable)
	if errors.Is(err, prebuild.ErrNoTests) {
		return cli.Usagef("%w", err)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return out.JSON(plan)
	}
	return plan.WriteTable(out.Stdout)
}
