// Command nix-closure-import brings a closure into a Nix store, see
// [vm-prebuild/storedb].
package main

import (
	"context"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/cmd/internal/closureimport"
	"vm-prebuild/storedb"
)

type command struct {
	ClosureInfo string `required:"" placeholder:"DIR" help:"Directory built by closureInfo: what to import."`
	Store       string `required:"" placeholder:"ROOT" help:"Root of the store to import into, as for nix --store. It is made if it does not exist."`
	From        string `default:"/" placeholder:"ROOT" help:"Root of the store that has the files. Default: ${default}."`
	Method      string `enum:"auto,reflink,copy" default:"auto" help:"How files come into the store: ${enum}. Default: ${default}, a reflink where the file system can and a copy elsewhere."`
	Verify      string `enum:"none,hash" default:"none" help:"What to check of the files before they are registered: ${enum}. Default: ${default}."`
	Jobs        int    `short:"j" placeholder:"N" help:"Files to copy at once. Default: one for each CPU."`
	DryRun      bool   `short:"n" help:"Only say what would be done."`
	JSON        bool   `name:"json" help:"Print JSON instead of text."`
}

func main() {
	cli.App{
		Name:        "nix-closure-import",
		Description: "Bring a closure into a Nix store: its files in parallel, its registration in one database transaction.",
		Examples: []cli.Example{
			{Text: "Make a store that has a closure of this machine's store", Command: "nix-closure-import --closure-info ./closure-info --store /tmp/store"},
			{Text: "The same from the store of a mounted image, checking all hashes", Command: "nix-closure-import --closure-info ./closure-info --from /mnt --store /tmp/store --verify hash"},
			{Text: "How much is missing?", Command: "nix-closure-import --closure-info ./closure-info --store /tmp/store --dry-run --json"},
		},
		ExitStatus: []cli.Status{
			{Code: cli.ExitOK, Meaning: "all paths of the closure are valid in the store"},
			{Code: cli.ExitFailed, Meaning: "files differ from their registration; the store is as before"},
			{Code: cli.ExitUsage, Meaning: "wrong usage, or bad input; the store is as before"},
			{Code: cli.ExitInfrastructure, Meaning: "no space or another failure of the system; the store is as before"},
		},
	}.Main(&command{})
}

// Run imports.
func (c *command) Run(ctx context.Context, out *cli.IO) error {
	if c.Jobs < 0 {
		return cli.Usagef("--jobs must not be negative")
	}
	closure, err := storedb.ReadClosureInfo(c.ClosureInfo)
	if err != nil {
		return err
	}
	return closureimport.Run(ctx, storedb.Options{
		Closure: closure, From: c.From, Store: c.Store,
		Method: storedb.Method(c.Method), Verify: storedb.Verify(c.Verify),
		Jobs: c.Jobs, DryRun: c.DryRun,
	}, c.JSON, out)
}
