package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/storedb/mountns"
)

type execCommand struct {
	ClosureInfo string   `required:"" placeholder:"DIR" help:"Directory built by closureInfo: what the store has."`
	Store       string   `placeholder:"ROOT" help:"Root at which the store appears. It is made if it does not exist, and removed. With /, programs of the closure run from their own paths. Default: a temporary directory; NIX_REMOTE says which."`
	From        string   `default:"/" placeholder:"ROOT" help:"Root of the store that has the files. Default: ${default}."`
	DBImage     string   `name:"db-image" placeholder:"DIR" help:"Directory made by db-image: the database of the store."`
	Method      string   `enum:"auto,overlay,bind" default:"auto" help:"How the files come into the store: ${enum}. Default: ${default}, what is possible here, and of that the faster."`
	Command     []string `arg:"" passthrough:"" name:"command" help:"Command to run, with its arguments."`
}

// Help says what is special about it.
func (execCommand) Help() string {
	return `The command runs in a mount namespace, as root or in a user namespace, in which a Nix store appears that has the closure and to which it may write. Nix finds it by its environment. Only the command and its children see the store, and what they add to it is gone when the command has ended; the store that the files are from is never written to.

Works for any user, and in a Nix build sandbox, where the kernel allows it, and says what forbids it elsewhere.`
}

// Examples are shown in the help.
func (execCommand) Examples() []cli.Example {
	return []cli.Example{
		{Text: "What does this closure hold, according to Nix?", Command: "nix-closure-import exec --closure-info ./closure-info -- nix path-info --all"},
		{Text: "A shell in which the store has nothing but the closure, ready in no time thanks to a database image", Command: "nix-closure-import exec --closure-info ./closure-info --db-image ./store-db --store / -- bash"},
		{Text: "In the builder of a derivation: a test that uses Nix", Command: `nix-closure-import exec --closure-info "$closureInfo" -- ./test.sh`},
	}
}

// Run runs the command.
func (c *execCommand) Run(ctx context.Context) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	// A "--" that has the command follow is not part of it.
	command := c.Command
	if command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 {
		return cli.Usagef("no command is given after --")
	}
	code, err := mountns.Run(ctx, mountns.Options{
		ClosureInfo: c.ClosureInfo, From: c.From, DBImage: c.DBImage,
		Method: mountns.Method(c.Method), Store: c.Store,
		Command: command, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Signals: signals,
	})
	if err != nil {
		return err
	}
	return cli.Exit(code)
}
