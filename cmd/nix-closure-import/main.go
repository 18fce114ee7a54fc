// Command nix-closure-import brings a closure into a Nix store, see
// [vm-prebuild/storedb], or runs a command in a store that has one, see
// [vm-prebuild/storedb/mountns].
package main

import (
	"os"
	"runtime/debug"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/storedb/mountns"
)

type command struct {
	Import  importCommand  `cmd:"" default:"withargs" help:"Bring a closure into a Nix store: its files in parallel, its registration in one transaction. This is what is done when no command is given."`
	Exec    execCommand    `cmd:"" help:"Run a command with a Nix store that has a closure, without copying it."`
	Env     envCommand     `cmd:"" help:"Print the environment in which Nix uses a store."`
	DBImage dbImageCommand `cmd:"" name:"db-image" help:"Make the database of a store that has a closure, ahead of time."`
	Verify  verifyCommand  `cmd:"" help:"Compare the files of a store and its database against each other."`
}

func main() {
	mountns.Main()
	if os.Getenv("GOGC") == "" {
		// Collecting garbage at Go's pace would be a quarter of an import, and find
		// little: most of what is allocated is needed until the end.
		debug.SetGCPercent(400)
	}
	cli.App{
		Name:        "nix-closure-import",
		Description: "Bring closures into Nix stores, fast, and use them there.",
		Examples: []cli.Example{
			{Text: "Make a store that has a closure of this machine's store", Command: "nix-closure-import --closure-info ./closure-info --store /tmp/store"},
			{Text: "Run a command that needs a store with this closure, copying nothing", Command: "nix-closure-import exec --closure-info ./closure-info -- nix-store --verify"},
		},
		ExitStatus: []cli.Status{
			{Code: cli.ExitOK, Meaning: "all paths of the closure are valid in the store; what was checked is right"},
			{Code: cli.ExitFailed, Meaning: "files or a store differ from their registration; after an import, the store is as before"},
			{Code: cli.ExitUsage, Meaning: "wrong usage, or bad input; the store is as before"},
			{Code: cli.ExitInfrastructure, Meaning: "no space, a kernel that forbids what is needed, or another failure of the system; the store is as before"},
			{Code: 126, Meaning: "exec: the command cannot be executed"},
			{Code: 127, Meaning: "exec: there is no such command. All other exit codes of exec are those of the command, or 128 plus the number of the signal that ended it"},
		},
	}.Main(&command{})
}
