package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/term"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/testrun"
	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/warm"
)

type warmBuildCommand struct {
	warmStore
	Config      string       `required:"" short:"c" placeholder:"FILE" help:"Driver configuration of the test, as for nixos-test-run. Its script is not run and may be missing."`
	WarmReady   string       `env:"NIXOS_TEST_WARM_READY" default:"shell" placeholder:"POINT" help:"When a machine is saved: shell, unit:NAME, file:PATH or command:COMMAND. Tests have to name the same. Default: ${default}."`
	Accel       string       `enum:"auto,kvm,tcg" default:"auto" help:"What the machines run under: ${enum}. States from kvm are for hosts with the same CPU. Default: ${default}."`
	BootTimeout cli.Duration `default:"5m" help:"How long a machine may take to its root shell. Default: ${default}."`
	Out         string       `placeholder:"DIR" help:"Pack the states into this directory, too: also those for this CPU, which are refused elsewhere."`
	JSON        bool         `name:"json" help:"Print JSON instead of text."`
	Machines    []string     `arg:"" optional:"" name:"machine" help:"Machines of the test; all when none is named."`
}

// Examples implements cli's interface.
func (c *warmBuildCommand) Examples() []cli.Example {
	return []cli.Example{
		{Text: "Boot a test's machines once, for all who will run it here", Command: "vm-prebuild warm build --config driver-configuration.json --warm-ready unit:multi-user.target"},
		{Text: "As a Nix derivation does, see nix/warm.nix", Command: "vm-prebuild warm build --config driver-configuration.json --accel tcg --out $out"},
	}
}

// builtState is a state as JSON.
type builtState struct {
	testrun.SavedState
	Packed *warm.Packed `json:"packed,omitempty"`
}

// Run saves the states and says which they are.
func (c *warmBuildCommand) Run(ctx context.Context, out *cli.IO) error {
	config, err := testrun.ReadConfig(c.Config)
	if err != nil {
		return err
	}
	if config.Warm.Ready, err = warm.ParseReady(c.WarmReady); err != nil {
		return cli.Usagef("--warm-ready: %w", err)
	}
	store, err := c.open()
	if err != nil {
		return err
	}
	if store.Dir, err = filepath.Abs(store.Dir); err != nil {
		return err
	}
	if config.OutDir, err = os.Getwd(); err != nil { // where nothing is written to
		return err
	}
	config.Warm.Store = store
	config.Accel = testrun.Accel(c.Accel)
	config.BootTimeout = time.Duration(c.BootTimeout)
	saved, err := testrun.SaveStates(ctx, config, testrun.Options{
		Log: out.Stderr, LogLevel: event.Info,
		Colours: term.IsTerminal(int(os.Stderr.Fd())) && os.Getenv("NO_COLOR") == "",
	}, c.Machines)
	if err != nil {
		return err
	}
	built := []builtState{}
	for _, s := range saved {
		b := builtState{SavedState: s}
		if c.Out != "" {
			p, err := pack(ctx, out, store, s.Key, c.Out, true)
			if err != nil {
				return err
			}
			b.Packed = &p
		}
		built = append(built, b)
	}
	if c.JSON {
		return out.JSON(built)
	}
	for _, b := range built {
		what := fmt.Sprintf("saved in %.1f seconds", b.Seconds)
		if b.There {
			what = "there already"
		}
		if _, err := fmt.Fprintf(out.Stdout, "%s: %s, %s\n", b.Machine, b.Key, what); err != nil {
			return err
		}
		if b.Packed != nil {
			fmt.Fprintln(out.Stdout, describePacked(*b.Packed))
		}
	}
	return nil
}
