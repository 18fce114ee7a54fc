// Command nixos-test-run runs one NixOS VM test. It takes the command lines,
// configuration files and environment of nixpkgs' nixos-test-driver, of every
// release from 24.05 on.
package main

import (
	"os"
	"path/filepath"
	"slices"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/testrun/reaper"
)

// grammar is the command line. Flags go before or after the name of a command:
// a test's wrapper puts its own first.
type grammar struct {
	flags

	Run      runCmd      `cmd:"" default:"withargs" help:"Run a test. The name of this command need not be given."`
	Eval     evalCmd     `cmd:"" help:"Run code, which may make its own machines with create_machine."`
	EvalFile evalFileCmd `cmd:"" help:"Run a file likewise."`
	Config   configCmd   `cmd:"" help:"Print the resolved configuration of a test, and where each value came from."`
	Symbols  symbolsCmd  `cmd:"" help:"List the names that every Python script has, for linters."`
	Stubs    stubsCmd    `cmd:"" help:"Write typed stubs of package test_driver, and test-script-prepend.py, for type checkers of Python scripts."`
	Generate generateCmd `cmd:"" name:"generate-driver-symbols" help:"Write that list to the file driver-symbols, as the program of this name does that comes with nixpkgs' driver."`
}

// generateName is the name of a second program of nixpkgs' driver.
const generateName = "generate-driver-symbols"

// called is the name by which this program was started, one of the two that it
// has for tests; as generate-driver-symbols it is that command.
func called() string {
	switch name := filepath.Base(os.Args[0]); name {
	case "nixos-test-driver":
		return name
	case generateName:
		os.Args = slices.Insert(os.Args, 1, generateName)
	}
	return "nixos-test-run"
}

func main() {
	reaper.Main()
	cli.App{
		Name:        called(),
		Rewrite:     argparse,
		EmptyValues: true, // nixpkgs' wrappers may give them
		Description: "Run one NixOS VM test: machines, VLANs and a test script. " +
			"It takes the command lines, configuration files and environment of nixpkgs' nixos-test-driver; long flags may be shortened. " +
			"A script that has the name of a command is run as ./NAME.",
		Groups: map[string]string{"old": "Without --config (wrappers of nixpkgs up to 25.11 pass these, also through the environment):"},
		Examples: []cli.Example{
			{Text: "run a test as its wrapper does", Command: "nixos-test-run --config driver-configuration.json -o results"},
			{Text: "the same machines, another script", Command: "nixos-test-run --config driver-configuration.json my-script.py"},
			{Text: "try things by hand", Command: "nixos-test-run --config driver-configuration.json -I"},
			{Text: "one subtest, with a page to read", Command: "nixos-test-run --config driver-configuration.json --subtest 'login.*' --html report.html"},
		},
		ExitStatus: []cli.Status{
			{Code: cli.ExitOK, Meaning: "the test passed"},
			{Code: cli.ExitFailed, Meaning: "the test failed; a script that calls sys.exit(n) decides itself"},
			{Code: cli.ExitUsage, Meaning: "wrong usage or configuration, or a script that does not compile (1 in nixpkgs' driver, but for its usage)"},
			{Code: cli.ExitInfrastructure, Meaning: "a machine, the interpreter or the host gave out (1 in nixpkgs' driver)"},
			{Code: cli.ExitTimeout, Meaning: "the test's global time-out was reached (nixpkgs' driver kills itself with SIGTERM)"},
		},
	}.Main(&grammar{})
}
