package main

import (
	"context"
	"fmt"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/storedb"
)

type dbImageCommand struct {
	ClosureInfo string `required:"" placeholder:"DIR" help:"Directory built by closureInfo: what is valid in the database."`
	Output      string `short:"o" required:"" placeholder:"OUT" help:"Directory to write the image to. It is made if it does not exist."`
	From        string `default:"/" placeholder:"ROOT" help:"Root of the store that has the closure; the derivations in it are read. Default: ${default}."`
	Jobs        int    `short:"j" placeholder:"N" help:"Derivations to read at once. Default: one for each CPU."`
}

// Help says what it is good for.
func (dbImageCommand) Help() string {
	return `An image is what takes time when a closure is registered, done once: import and exec copy it, which takes milliseconds. The same closure gives the same image, byte for byte.`
}

// Examples are shown in the help.
func (dbImageCommand) Examples() []cli.Example {
	return []cli.Example{
		{Text: "Make an image, then stores from it", Command: "nix-closure-import db-image --closure-info ./closure-info -o ./store-db && nix-closure-import --closure-info ./closure-info --db-image ./store-db --store /tmp/store"},
	}
}

// Run makes the image.
func (c *dbImageCommand) Run(ctx context.Context, out *cli.IO) error {
	if c.Jobs < 0 {
		return cli.Usagef("--jobs must not be negative")
	}
	closure, err := storedb.ReadClosureInfo(c.ClosureInfo)
	if err != nil {
		return err
	}
	err = storedb.WriteImage(ctx, storedb.ImageOptions{Closure: closure, From: c.From, Out: c.Output, Jobs: c.Jobs})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out.Stdout, "wrote the database of %d paths to %s\n", len(closure.Paths), c.Output)
	return err
}
