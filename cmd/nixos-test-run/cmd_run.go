package main

import (
	"context"
	"fmt"
	"os"

	"github.com/alecthomas/kong"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/testrun"
)

// runCmd is what nixpkgs' driver does; its name need not be given.
type runCmd struct {
	Script string `arg:"" optional:"" help:"Test script; it replaces the configuration's."`
}

// Help implements kong's interface.
func (c *runCmd) Help() string {
	return "Sockets and the states of machines are kept in $XDG_RUNTIME_DIR, else in $TMPDIR, $TEMP, $TMP or /tmp. " +
		"Several drivers of one user may run at once: the first has that directory, the others one of their own in it, which is removed in the end. " +
		"With --keep-machine-state there can be one only. " +
		"The machines get the environment of the script: QEMU_OPTS, QEMU_NET_OPTS, QEMU_KERNEL_PARAMS, NIX_DISK_IMAGE and what else start scripts read."
}

// Run implements kong's command interface.
func (c *runCmd) Run(ctx context.Context, parsed *kong.Context, g *grammar) error {
	t, err := g.test(parsed, c.Script)
	if err != nil {
		return err
	}
	if t.ScriptPath == "" && !t.Interactive {
		return cli.Usagef("there is neither a configuration nor a test script\nhint: pass --config FILE, or start scripts and a test script")
	}
	return testrun.Run(ctx, t.Config, t.Options)
}

// evalCmd runs code without a file.
type evalCmd struct {
	Code string `arg:"" help:"What to run."`
}

// Examples implements cli's interface.
func (c *evalCmd) Examples() []cli.Example {
	return []cli.Example{
		{Text: "boot a start script and look around", Command: `nixos-test-run eval 'print(create_machine("./result/bin/run-web-vm").succeed("uname -a"))' --vlans 1`},
		{Text: "the machines of a test", Command: `nixos-test-run --config driver-configuration.json eval 'print(client.succeed("ip addr"))'`},
	}
}

// Run implements kong's command interface.
func (c *evalCmd) Run(ctx context.Context, parsed *kong.Context, g *grammar) error {
	// Hosts read scripts from files: a failure shows the line of the script.
	file, err := os.CreateTemp("", "nixos-test-run-*.eval")
	if err != nil {
		return fmt.Errorf("file for the code: %w", err)
	}
	defer os.Remove(file.Name())
	_, err = file.WriteString(c.Code + "\n")
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("file for the code: %w", err)
	}
	return evaluate(ctx, parsed, g, file.Name())
}

// evalFileCmd runs a file.
type evalFileCmd struct {
	File string `arg:"" help:"What to run."`
}

// Run implements kong's command interface.
func (c *evalFileCmd) Run(ctx context.Context, parsed *kong.Context, g *grammar) error {
	return evaluate(ctx, parsed, g, c.File)
}

// evaluate runs a script that may make its own machines. Those of the flags are
// there, too: a wrapper passes its configuration with every command.
func evaluate(ctx context.Context, parsed *kong.Context, g *grammar, script string) error {
	if g.Interactive {
		return cli.Usagef("eval offers no prompt\nhint: leave out --interactive, or the command")
	}
	t, err := g.test(parsed, script)
	if err != nil {
		return err
	}
	return testrun.Run(ctx, t.Config, t.Options)
}
