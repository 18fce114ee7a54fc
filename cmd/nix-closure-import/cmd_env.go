package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/storedb/mountns"
)

type envCommand struct {
	Store string `required:"" placeholder:"ROOT" help:"Root of the store, as for nix --store."`
	JSON  bool   `name:"json" help:"Print JSON instead of shell commands."`
}

// Help says what is in it.
func (envCommand) Help() string {
	return `In this environment Nix uses the store, and no configuration, daemon, substituter or build user of the machine. The value that NIX_CONFIG has now is kept, and overrides what is set. HOME is set if it is no directory that can be written to, as in a build sandbox.`
}

// Examples are shown in the help.
func (envCommand) Examples() []cli.Example {
	return []cli.Example{
		{Text: "Use a store that an import has made, in a shell or the builder of a derivation", Command: `eval "$(nix-closure-import env --store /tmp/store)"`},
	}
}

// Run prints the environment.
func (c *envCommand) Run(out *cli.IO) error {
	root, err := filepath.Abs(c.Store)
	if err != nil {
		return err
	}
	vars := mountns.Environment(root, os.Environ())
	if c.JSON {
		return out.JSON(vars)
	}
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		_, err := fmt.Fprintf(out.Stdout, "export %s='%s'\n", name, strings.ReplaceAll(vars[name], "'", `'\''`))
		if err != nil {
			return err
		}
	}
	return nil
}
