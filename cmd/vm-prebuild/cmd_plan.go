package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/prebuild"
	"vm-prebuild/testrun/suite"
)

type planCommand struct {
	nixOptions
	Format      string   `enum:"text,json,github-matrix" default:"text" placeholder:"FORMAT" help:"One of ${enum}. A matrix has a job for each shard. Default: ${default}."`
	JSON        bool     `name:"json" help:"The same as --format json."`
	Shards      int      `placeholder:"N" help:"Distribute the tests over N shards that take about as long as each other."`
	Durations   []string `sep:"none" placeholder:"PATH" help:"Report of an earlier run-vm-tests (of --junit-xml or --json), or a directory with some, that --shards takes the tests' durations from. Can be repeated."`
	Jobs        int      `short:"j" placeholder:"N" help:"Evaluate with at most N processes. Default: one for each CPU, as far as memory allows."`
	Installable string   `arg:"" optional:"" help:"A test or a set with tests. Default: .#checks.<system>."`
}

// Examples are shown by --help.
func (planCommand) Examples() []cli.Example {
	return []cli.Example{
		{Text: "What is there to build, with another nixpkgs?", Command: "vm-prebuild plan -- --override-input nixpkgs path:../nixpkgs"},
		{Text: "The matrix of a GitHub Actions workflow: matrix: ${{ fromJSON(needs.plan.outputs.matrix) }}", Command: `echo "matrix=$(vm-prebuild plan --format github-matrix --shards 5 --durations reports)" >> "$GITHUB_OUTPUT"`},
		{Text: "What a job of that matrix runs", Command: "run-vm-tests ${{ matrix.tests }}"},
	}
}

// Run prints the plan.
func (c *planCommand) Run(ctx context.Context, out *cli.IO) error {
	if err := c.check(); err != nil {
		return err
	}
	durations, missing, err := suite.ReadDurations(c.Durations...)
	if err != nil {
		return err
	}
	for _, path := range missing {
		fmt.Fprintf(out.Stderr, "durations %s: there are none yet\n", path)
	}
	nix := c.nix(out)
	nix.Jobs = c.Jobs
	if c.Format == "github-matrix" {
		tests, err := nix.Tests(ctx, c.Installable)
		if err != nil {
			return planError(err)
		}
		matrix, err := prebuild.NewGitHubMatrix(prebuild.Split(tests, durations, c.Shards))
		if err != nil {
			return cli.Usagef("%w", err)
		}
		// In one line, as the output of a step has to be.
		return json.NewEncoder(out.Stdout).Encode(matrix)
	}
	plan, err := nix.Plan(ctx, c.Installable)
	if err != nil {
		return planError(err)
	}
	if c.Shards > 0 {
		plan.Shards = prebuild.Split(plan.Tests, durations, c.Shards)
	}
	if c.JSON || c.Format == "json" {
		return out.JSON(plan)
	}
	return plan.WriteTable(out.Stdout)
}

// check checks flags and fills in what was left out.
func (c *planCommand) check() error {
	switch {
	case c.Jobs < 0:
		return cli.Usagef("--jobs must not be negative")
	case c.Shards < 0 || c.Shards > suite.MaxShards:
		return cli.Usagef("--shards must be from 1 to %d", suite.MaxShards)
	case c.JSON && c.Format != "text":
		return cli.Usagef("--json and --format %s are not for each other", c.Format)
	case c.Shards == 0 && c.Format == "github-matrix":
		return cli.Usagef("--format github-matrix needs --shards\nhint: --shards 5 makes five jobs, or one for each test if there are fewer")
	case c.Shards == 0 && len(c.Durations) > 0:
		return cli.Usagef("--durations has no effect without --shards")
	}
	if c.Installable == "" {
		c.Installable = ".#checks." + prebuild.System()
	}
	return nil
}

// planError gives an installable without tests its exit code.
func planError(err error) error {
	if errors.Is(err, prebuild.ErrNoTests) {
		return cli.Usagef("%w", err)
	}
	return err
}
