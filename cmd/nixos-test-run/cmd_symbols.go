package main

import (
	"fmt"
	"os"
	"strings"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/testrun/script/symbols"
)

// symbolsCmd lists what linters must know.
type symbolsCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run implements kong's command interface.
func (c *symbolsCmd) Run(out *cli.IO) error {
	names := symbols.DriverSymbols()
	if c.JSON {
		return out.JSON(names)
	}
	fmt.Fprintln(out.Stdout, strings.Join(names, "\n"))
	return nil
}

// symbolsFile is what nixpkgs' driver.nix reads after generate-driver-symbols.
const symbolsFile = "driver-symbols"

// generateCmd is a program of nixpkgs' driver; its name may be that by which
// nixos-test-run was started.
type generateCmd struct{}

// Run implements kong's command interface.
func (c *generateCmd) Run() error {
	// No newline: builders paste the text into an environment variable.
	text := strings.Join(symbols.DriverSymbols(), ",")
	if err := os.WriteFile(symbolsFile, []byte(text), 0o666); err != nil {
		return fmt.Errorf("list of symbols: %w", err)
	}
	return nil
}
