package main

import (
	"context"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/cmd/internal/closureimport"
	"vm-prebuild/prebuild"
	"vm-prebuild/storedb"
)

type importCommand struct {
	Store string `required:"" placeholder:"ROOT" help:"Root of the store to import into, as for nix --store; made if missing."`
	From  string `default:"/" placeholder:"ROOT" help:"Root of the store that has the files. Default: ${default}."`
	JSON  bool   `name:"json" help:"Print JSON instead of text."`
	What  string `arg:"" name:"closure-info|result" help:"A closureInfo directory, a build result, or a manifest."`
}

// Run imports the closure and says what that took.
func (c *importCommand) Run(ctx context.Context, out *cli.IO) error {
	closureInfo, err := prebuild.FindClosureInfo(c.What, c.From)
	if err != nil {
		return err
	}
	closure, err := storedb.ReadClosureInfo(closureInfo)
	if err != nil {
		return err
	}
	return closureimport.Run(ctx, storedb.Options{Closure: closure, From: c.From, Store: c.Store}, c.JSON, out)
}
