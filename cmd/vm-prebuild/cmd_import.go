package main

import (
	"context"
	"fmt"
	"time"

	"vm-prebuild/cmd/internal/cli"
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
	options := storedb.Options{ClosureInfo: closureInfo, From: c.From, Store: c.Store}
	terminal := out.Width() != nil
	if terminal {
		options.Progress = func(p storedb.Progress) {
			fmt.Fprintf(out.Stderr, "\r\x1b[K%s: %d/%d paths", p.Phase, p.Paths, p.TotalPaths)
		}
	}
	summary, err := storedb.Import(ctx, options)
	if terminal {
		fmt.Fprint(out.Stderr, "\r\x1b[K")
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return out.JSON(summary)
	}
	_, err = fmt.Fprintf(out.Stdout, "%d paths: %d imported in %v, %d were there already\n",
		summary.Paths, summary.Placed, summary.Total.Round(time.Millisecond), summary.AlreadyValid)
	return err
}
