package main

import (
	"context"
	"fmt"

	"vm-prebuild/cmd/internal/cli"
)

type buildCommand struct {
	nixOptions
	JSON        bool   `name:"json" help:"Print JSON instead of text."`
	Output      string `short:"o" default:"result" placeholder:"LINK" help:"Symbolic link to make to the result. Default: ${default}."`
	Installable string `arg:"" optional:"" default:".#run-vm-tests-with-cache" help:"What to build. Default: ${default}."`
}

// Run builds and says where the manifest is.
func (c *buildCommand) Run(ctx context.Context, out *cli.IO) error {
	result, err := c.nix(out).Build(ctx, c.Installable, c.Output)
	if err != nil {
		return err
	}
	if c.JSON {
		return out.JSON(map[string]any{
			"manifest":    result.Path,
			"closureInfo": result.Manifest.ClosureInfo,
			"tests":       result.Manifest.Names(),
		})
	}
	_, err = fmt.Fprintf(out.Stdout, "manifest: %s\ntests: %d\n", result.Path, len(result.Manifest.Tests))
	return err
}
