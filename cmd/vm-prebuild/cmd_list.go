package main

import (
	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/prebuild"
)

type listCommand struct {
	JSON   bool   `name:"json" help:"Print JSON instead of a table."`
	Result string `arg:"" optional:"" default:"result" help:"Build result or manifest. Default: ${default}."`
}

// Run prints the tests of the manifest.
func (c *listCommand) Run(out *cli.IO) error {
	result, err := prebuild.Find(c.Result)
	if err != nil {
		return err
	}
	if c.JSON {
		return out.JSON(result.Manifest)
	}
	return prebuild.WriteTestTable(out.Stdout, result.Manifest)
}
