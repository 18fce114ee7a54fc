package main

import (
	"context"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/cmd/internal/closureimport"
	"vm-prebuild/storedb"
)

type importCommand struct {
	ClosureInfo  string   `required:"" xor:"what" placeholder:"DIR" help:"Directory built by closureInfo: what to import."`
	Registration string   `required:"" xor:"what" placeholder:"FILE" help:"What to import, in the format of nix-store --load-db."`
	Paths        []string `required:"" xor:"what" placeholder:"PATH" help:"Store path to import, with all that it refers to, as the database of the store that has the files knows it. Can be repeated, or have several paths between commas."`
	StorePaths   string   `placeholder:"FILE" help:"With --registration: file that must list the same paths, one a line."`
	Store        string   `required:"" placeholder:"ROOT" help:"Root of the store to import into, as for nix --store. It is made if it does not exist."`
	From         string   `default:"/" placeholder:"ROOT" help:"Root of the store that has the files. Default: ${default}."`
	RegisterOnly bool     `help:"The files are in the store already; only register them."`
	Reregister   bool     `help:"Overwrite what is registered of paths that are valid already, as nix-store --load-db does."`
	Method       string   `enum:"auto,overlay,bind,snapshot,reflink,hardlink,copy" default:"auto" help:"How files come into the store: ${enum}. Default: ${default}, a btrfs snapshot or reflinks where the file system can and a copy elsewhere."`
	Verify       string   `enum:"none,size,hash" default:"none" help:"What to check of the files before they are registered: ${enum}. Default: ${default}."`
	Jobs         int      `short:"j" placeholder:"N" help:"Files to copy at once. Default: one for each CPU. Reflinks on btrfs are made one by one."`
	GCRoot       string   `name:"gc-root" placeholder:"NAME" help:"Keep the closure from the garbage collector, by links in the directory of this name below nix/var/nix/gcroots."`
	DBImage      string   `name:"db-image" placeholder:"DIR" help:"Directory made by db-image of the same closureInfo. An empty store gets its database from there."`
	DryRun       bool     `short:"n" help:"Only say what would be done."`
	JSON         bool     `name:"json" help:"Print JSON instead of text."`
}

// Help says what there is to know of the methods.
func (importCommand) Help() string {
	return `Methods: overlay and bind copy nothing; they mount in the mount namespace of the command, as its administrator, and the store has its files where those mounts are seen (exec does all of that by itself). snapshot needs a source that is a btrfs subvolume. reflink shares data until one side changes. hardlink shares files: who changes one changes both. copy shares nothing.`
}

// Examples are shown in the help.
func (importCommand) Examples() []cli.Example {
	return []cli.Example{
		{Text: "Make a store that has a closure of this machine's store", Command: "nix-closure-import --closure-info ./closure-info --store /tmp/store"},
		{Text: "The same from the store of a mounted image, checking all hashes", Command: "nix-closure-import --closure-info ./closure-info --from /mnt --store /tmp/store --verify hash"},
		{Text: "A package and what it needs, kept from the garbage collector", Command: `nix-closure-import --paths "$(readlink -f result)" --store /mnt --gc-root installed`},
		{Text: "Register what a copy of the files has brought", Command: "nix-closure-import --registration ./registration --store /mnt --register-only"},
		{Text: "How much is missing?", Command: "nix-closure-import --closure-info ./closure-info --store /tmp/store --dry-run --json"},
	}
}

// Run imports.
func (c *importCommand) Run(ctx context.Context, out *cli.IO) error {
	jobs, err := cli.Workers(c.Jobs)
	if err != nil {
		return err
	}
	if c.RegisterOnly && c.DBImage != "" && c.ClosureInfo != "" && c.GCRoot == "" && !c.DryRun {
		done, err := closureimport.RegisterImage(ctx, storedb.StateOptions{
			Root: c.Store, ClosureInfo: c.ClosureInfo, From: c.Store, DBImage: c.DBImage,
		}, c.JSON, out)
		if done || err != nil {
			return err
		}
	}
	closure, err := c.closure(ctx)
	if err != nil {
		return err
	}
	return closureimport.Run(ctx, storedb.Options{
		Closure: closure, Store: c.Store, From: c.From,
		Method: storedb.Method(c.Method), Verify: storedb.Verify(c.Verify), Jobs: jobs,
		RegisterOnly: c.RegisterOnly, Reregister: c.Reregister, GCRoot: c.GCRoot, DBImage: c.DBImage,
		DryRun: c.DryRun,
	}, c.JSON, out)
}

// closure reads what to import.
func (c *importCommand) closure(ctx context.Context) (*storedb.Closure, error) {
	if c.StorePaths != "" && c.Registration == "" {
		return nil, cli.Usagef("--store-paths needs --registration")
	}
	switch {
	case c.Registration != "":
		return storedb.ReadRegistration(c.Registration, c.StorePaths)
	case c.ClosureInfo != "":
		return storedb.ReadClosureInfo(c.ClosureInfo)
	}
	return storedb.QueryClosure(ctx, c.From, c.Paths)
}
