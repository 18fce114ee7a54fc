// Command nix-vm-build-hook is a program for Nix's setting build-hook, see
// [vm-prebuild/buildhook].
package main

import (
	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/storedb/mountns"
)

type command struct {
	Hook   hookCommand   `cmd:"" default:"withargs" help:"Answer Nix's questions, and build VM tests. This is what Nix starts."`
	Status statusCommand `cmd:"" help:"Show which tests run and wait, and what they have."`
}

func main() {
	mountns.Main()
	cli.App{
		Name:        "nix-vm-build-hook",
		Description: "Build NixOS VM tests for Nix: also where Nix itself would refuse to, and never more at once than the machine can take.",
		Examples: []cli.Example{
			{Text: "One build with it, where there is no KVM", Command: `VM_PREBUILD_HOOK_TCG=allow nix build .#checks.x86_64-linux.my-test --option build-hook /usr/bin/nix-vm-build-hook`},
			{Text: "In nix.conf, for all builds, with room for three tests of 4 GiB", Command: "build-hook = /usr/bin/nix-vm-build-hook --memory 12G"},
			{Text: "What is running, and what waits?", Command: "nix-vm-build-hook status"},
		},
		ExitStatus: []cli.Status{
			{Code: cli.ExitOK, Meaning: "the test was built, or there was nothing to build"},
			{Code: cli.ExitUsage, Meaning: "wrong usage, or this process was not started by Nix"},
			{Code: cli.ExitInfrastructure, Meaning: "something needed failed before a test was accepted"},
			{Code: 100, Meaning: "the test has failed: Nix's own number for that"},
			{Code: 101, Meaning: "the test has taken too long, or was silent for too long"},
		},
		Misused: misused,
	}.Main(&command{})
}
