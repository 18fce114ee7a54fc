// Command bench measures what the README claims: our tools against what people
// use now, both sides in one run. It needs root, Nix and the tools of the file
// systems; what it mounts, and all it writes, is gone with it.
package main

import (
	"context"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/cmd/internal/synthetic"
	"vm-prebuild/testrun/reaper"
)

type command struct {
	Run      runCommand      `cmd:"" help:"Measure all jobs, or some, and judge them by their targets."`
	Scale    scaleCommand    `cmd:"" help:"Measure how cost grows with the number of store paths."`
	Driver   driverCommand   `cmd:"" help:"Measure the test driver next to the Python driver's algorithm."`
	Warm     warmCommand     `cmd:"" help:"Measure machines that are restored next to such that boot."`
	Generate generateCommand `cmd:"" help:"Write a synthetic closure."`
	Sample   sampleCommand   `cmd:"" hidden:""`
	Guest    guestCommand    `cmd:"" name:"play-guest" hidden:""`
}

func main() {
	reaper.Main()
	cli.App{
		Name:        "bench",
		Description: "Measure vm-prebuild's tools against what people use now: the same job on fresh file systems, taking turns.",
		Examples: []cli.Example{
			{Text: "Everything, as docs/benchmarks.md has it", Command: "bench run --markdown docs/benchmarks.md"},
			{Text: "Does it work at all?", Command: "bench run --scale 0.02 --runs 1"},
			{Text: "One line of the table", Command: "bench run --lines 'copy and register.*btrfs'"},
			{Text: "The test driver", Command: "bench driver --markdown docs/benchmarks.md"},
			{Text: "Warm machines", Command: "bench warm --markdown docs/benchmarks.md --svg docs/warm.svg"},
			{Text: "How does it grow?", Command: "bench scale --svg docs/scaling.svg"},
		},
		ExitStatus: []cli.Status{
			{Code: cli.ExitOK, Meaning: "every line that was judged reached its target"},
			{Code: cli.ExitFailed, Meaning: "a line missed its target, or one of the two sides failed"},
			{Code: cli.ExitUsage, Meaning: "wrong usage"},
			{Code: cli.ExitInfrastructure, Meaning: "not root, a tool is missing, or something else failed"},
		},
	}.Main(&command{})
}

type generateCommand struct {
	Root  string `arg:"" help:"Where to write it: files go to nix/store below it, and closure-info beside that."`
	Paths int    `default:"3000" help:"Store paths. Default: ${default}."`
	Files int    `default:"60000" help:"Files in all of them; 0 makes every path an empty file. Default: ${default}."`
	Bytes int64  `default:"1500000000" help:"Sizes of all files together. Default: ${default}."`
	Seed  uint64 `default:"1" help:"Other seeds make other closures. Default: ${default}."`
	Even  bool   `help:"Give all paths equally many files."`
	Fake  bool   `help:"Write a registration of empty files, and no files."`
}

// Run writes the closure and says what it has.
func (c *generateCommand) Run(ctx context.Context, out *cli.IO) error {
	closure, err := synthetic.Spec{
		Paths: c.Paths, Files: c.Files, Bytes: c.Bytes, Seed: c.Seed, Even: c.Even, RegistrationOnly: c.Fake,
	}.Write(ctx, c.Root)
	if err != nil {
		return err
	}
	return out.JSON(closure)
}
