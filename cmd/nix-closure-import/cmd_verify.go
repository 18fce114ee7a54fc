package main

import (
	"context"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/cmd/internal/closureimport"
	"vm-prebuild/storedb"
)

type verifyCommand struct {
	Store   string `required:"" placeholder:"ROOT" help:"Root of the store, as for nix --store."`
	Jobs    int    `short:"j" placeholder:"N" help:"Store paths to read at once. Default: one for each CPU."`
	Verbose bool   `short:"v" help:"Print information, too: what is unusual but may be as it should."`
	JSON    bool   `name:"json" help:"Print JSON instead of text."`
}

// Help says what is checked.
func (verifyCommand) Help() string {
	return `Compares files, hashes, references, outputs of derivations and the database against each other, reading each file once. Nothing is changed. The store may be in use.`
}

// Examples are shown in the help.
func (verifyCommand) Examples() []cli.Example {
	return []cli.Example{
		{Text: "Is all as the database says?", Command: "nix-closure-import verify --store /tmp/store"},
		{Text: "Which paths were modified?", Command: `nix-closure-import verify --store /tmp/store --json | jq -r '.findings[] | select(.kind == "modified") | .path'`},
	}
}

// Run verifies.
func (c *verifyCommand) Run(ctx context.Context, out *cli.IO) error {
	jobs, err := cli.Workers(c.Jobs)
	if err != nil {
		return err
	}
	return closureimport.Verify(ctx, storedb.VerifyOptions{Store: c.Store, Jobs: jobs}, c.Verbose, c.JSON, out)
}
