// Command vm-prebuild plans, builds, lists and imports prebuilt NixOS VM tests, and
// says what a machine lacks to run them; see [vm-prebuild/prebuild]. It also makes the
// states of machines that tests start from; see [vm-prebuild/testrun/warm].
package main

import (
	"slices"

	"github.com/alecthomas/kong"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/prebuild"
	"vm-prebuild/testrun"
)

type command struct {
	Plan   planCommand   `cmd:"" help:"Say what would be built or fetched for each VM test."`
	Build  buildCommand  `cmd:"" help:"Build all that the VM tests need, and the command that runs them."`
	List   listCommand   `cmd:"" help:"List the tests that were prebuilt."`
	Export exportCommand `cmd:"" help:"Bring the closure of prebuilt tests into a binary cache."`
	Import importCommand `cmd:"" help:"Bring the closure of prebuilt tests into another Nix store."`
	Doctor doctorCommand `cmd:"" help:"Say what this machine lacks to run VM tests, and what mends it."`
	Warm   warmCommand   `cmd:"" help:"Save states of machines that tests start from, look after them, and send them."`
}

func main() {
	testrun.Main()
	cli.App{
		Name:        "vm-prebuild",
		Description: "Prebuild NixOS VM tests: all that they need before their machines boot.",
		Examples: []cli.Example{
			{Text: "What do the tests of this flake still need?", Command: "vm-prebuild plan"},
			{Text: "Build them with another nixpkgs, then run them", Command: "vm-prebuild build -- --override-input nixpkgs path:../nixpkgs && result/bin/run-vm-tests"},
			{Text: "What does this machine lack to run them?", Command: "vm-prebuild doctor"},
			{Text: "Bring them into the store of a machine image", Command: "vm-prebuild import --store /mnt result"},
		},
		ExitStatus: []cli.Status{
			{Code: cli.ExitOK, Meaning: "success"},
			{Code: cli.ExitFailed, Meaning: "doctor: something is missing that VM tests need; warm: a state is not what it should be"},
			{Code: cli.ExitUsage, Meaning: "wrong usage, a bad manifest or configuration, or an installable without VM tests"},
			{Code: cli.ExitInfrastructure, Meaning: "nix failed, a store could not be written, or a machine could not be saved"},
		},
		Rewrite: nixArgs,
	}.Main(&command{})
}

// nixOptions are the flags of commands that call nix.
type nixOptions struct {
	NixArg []string `sep:"none" placeholder:"ARG" help:"Pass ARG to nix. Can be repeated; all arguments after -- are passed, too."`
}

func (o nixOptions) nix(out *cli.IO) *prebuild.Nix {
	return &prebuild.Nix{Args: o.NixArg, Log: out.Stderr}
}

// nixArgs turns the arguments after "--" of commands that call nix into values
// of --nix-arg. (For kong they would be positional arguments.)
func nixArgs(_ *kong.Application, args []string) ([]string, error) {
	at := slices.Index(args, "--")
	if at < 1 || args[0] != "plan" && args[0] != "build" {
		return args, nil
	}
	rewritten := slices.Clone(args[:at])
	for _, arg := range args[at+1:] {
		rewritten = append(rewritten, "--nix-arg="+arg)
	}
	return rewritten, nil
}
