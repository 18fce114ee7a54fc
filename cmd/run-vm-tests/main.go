// Command run-vm-tests runs the prebuilt VM tests of a manifest, see
// [vm-prebuild/testrun/suite].
package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/testrun/reaper"
	"vm-prebuild/testrun/suite"
)

type command struct {
	Manifest  string   `env:"VM_PREBUILD_MANIFEST" placeholder:"FILE" help:"Manifest of the prebuilt tests."`
	Jobs      int      `short:"j" placeholder:"N" help:"Run at most N tests at once. Default: as many as the processor has cores for."`
	Filter    string   `placeholder:"REGEX" help:"Run only tests whose name matches."`
	Shard     string   `placeholder:"I/N" help:"Run only the Ith of N parts of the tests, which take about as long as each other."`
	Durations []string `sep:"none" placeholder:"PATH" help:"Report of an earlier run (of --junit-xml or --json), or a directory with some, that --shard takes the tests' durations from. Can be repeated."`
	List      bool     `help:"List the tests, do not run them."`
	JSON      bool     `name:"json" help:"Print JSON instead of text."`
	JUnitXML  string   `name:"junit-xml" placeholder:"FILE" help:"Write a JUnit report as well."`
	Warm      string   `env:"NIXOS_TEST_WARM" enum:",off,auto,require" default:"" placeholder:"MODE" help:"Start machines from saved states: off, auto or require. With auto, machines boot for which there is no state that fits. Default: auto for tests that were built with states (prebuild.warm.enable), off for others."`
	WarmSave  bool     `env:"NIXOS_TEST_WARM_SAVE" help:"Save the state of a machine for which there is none."`
	WarmDir   string   `env:"NIXOS_TEST_WARM_DIR" placeholder:"DIR" help:"Directory of the states. Default: $XDG_CACHE_HOME/vm-prebuild/warm."`
	WarmFrom  []string `env:"NIXOS_TEST_WARM_FROM" sep:":" placeholder:"DIR" help:"Directory of packed states, from which a state is unpacked that is in no --warm-dir yet. Can be repeated; or several with colons between them."`
	Output    string   `short:"o" default:"./vm-test-results" placeholder:"DIR" help:"Directory for logs and results; every test gets a directory below it. Default: ${default}."`
	Tests     []string `arg:"" optional:"" name:"test" help:"Tests to run; all when none is named."`
}

func main() {
	reaper.Main()
	cli.App{
		Name:        "run-vm-tests",
		Description: "Run prebuilt NixOS VM tests, as many at once as cores and memory allow.",
		Examples: []cli.Example{
			{Text: "Run all tests that were built", Command: "nix build .#run-vm-tests-with-cache && result/bin/run-vm-tests"},
			{Text: "Run two tests, one after the other", Command: "run-vm-tests --manifest result/manifest.json --jobs 1 vm-help vm-themes"},
			{Text: "Boot each machine once, and then never again", Command: "run-vm-tests --warm auto --warm-save"},
			{Text: "Run the configuration tests and leave a report for the CI", Command: "run-vm-tests --filter '^vm-config' --junit-xml report.xml"},
			{Text: "Run the second of five parts, balanced by what the tests took last time", Command: "run-vm-tests --shard 2/5 --durations report.xml"},
		},
		ExitStatus: []cli.Status{
			{Code: cli.ExitOK, Meaning: "all tests passed"},
			{Code: cli.ExitFailed, Meaning: "a test failed or ran into its time-out"},
			{Code: cli.ExitUsage, Meaning: "wrong usage, a bad manifest, or no test matches"},
			{Code: cli.ExitInfrastructure, Meaning: "no test failed, but one could not be run: its driver is missing, a machine died"},
		},
	}.Main(&command{})
}

// Run runs or lists the tests.
func (c *command) Run(ctx context.Context, out *cli.IO) error {
	if c.Manifest == "" {
		return cli.Usagef("no manifest\nhint: name it with --manifest or VM_PREBUILD_MANIFEST; the run-vm-tests that `vm-prebuild build` makes knows its own")
	}
	if c.Jobs < 0 {
		return cli.Usagef("--jobs must not be negative")
	}
	filter, err := regexp.Compile(c.Filter)
	if err != nil {
		return cli.Usagef("--filter: %w", err)
	}
	manifest, err := suite.ReadManifest(c.Manifest)
	if err != nil {
		return err
	}
	names, err := manifest.Select(c.Tests, filter)
	if err != nil {
		return cli.Usagef("%w", err)
	}
	if names, err = c.shard(out, names); err != nil {
		return err
	}
	if c.List {
		return list(out, manifest, names, c.JSON)
	}
	warmEnv, err := c.warmEnv()
	if err != nil {
		return err
	}
	console := suite.NewConsole(out.Stderr, out.Width())
	report, err := suite.Run(ctx, manifest, names, suite.Options{
		OutputDir: c.Output, Jobs: c.Jobs, Progress: console.Progress, Env: warmEnv,
	})
	console.Close()
	if report != nil {
		err = errors.Join(err, c.report(out, report))
	}
	if err != nil {
		return err
	}
	return verdict(report)
}

// shard picks the tests of the shard that is asked for. It may have none: a CI
// system starts as many jobs as it was told to.
func (c *command) shard(out *cli.IO, names []string) ([]string, error) {
	if c.Shard == "" {
		if len(c.Durations) > 0 {
			return nil, cli.Usagef("--durations has no effect without --shard")
		}
		return names, nil
	}
	number, of, err := suite.ParseShard(c.Shard)
	if err != nil {
		return nil, cli.Usagef("--shard: %w", err)
	}
	durations, missing, err := suite.ReadDurations(c.Durations...)
	if err != nil {
		return nil, err
	}
	for _, path := range missing {
		fmt.Fprintf(out.Stderr, "durations %s: there are none yet\n", path)
	}
	return suite.Split(names, durations, of)[number-1].Tests, nil
}

// warmEnv tells the drivers, of which some may be older than their flags for this,
// what is to be started from saved states.
func (c *command) warmEnv() ([]string, error) {
	if c.WarmSave && (c.Warm == "off" || c.Warm == "") {
		return nil, cli.Usagef("--warm-save has no effect without --warm\nhint: say --warm=auto")
	}
	env := []string{fmt.Sprintf("NIXOS_TEST_WARM_SAVE=%t", c.WarmSave)}
	if c.Warm != "" {
		env = append(env, "NIXOS_TEST_WARM="+c.Warm)
	}
	for name, dirs := range map[string][]string{"NIXOS_TEST_WARM_DIR": {c.WarmDir}, "NIXOS_TEST_WARM_FROM": c.WarmFrom} {
		var paths []string
		for _, dir := range dirs {
			if dir == "" {
				continue
			}
			path, err := filepath.Abs(dir)
			if err != nil {
				return nil, err
			}
			paths = append(paths, path)
		}
		if len(paths) > 0 {
			env = append(env, name+"="+strings.Join(paths, ":"))
		}
	}
	return env, nil
}

func (c *command) report(out *cli.IO, report *suite.Report) error {
	if c.JUnitXML != "" {
		if err := report.WriteJUnitFile(c.JUnitXML); err != nil {
			return err
		}
	}
	if c.JSON {
		return out.JSON(report)
	}
	return report.WriteTable(out.Stdout)
}

// verdict turns tests that did not pass into the error that they are here.
func verdict(report *suite.Report) error {
	bad := len(report.Results) - report.Count(suite.Passed)
	if bad == 0 {
		return nil
	}
	code := cli.ExitFailed
	if bad == report.Count(suite.Error) {
		code = cli.ExitInfrastructure
	}
	return cli.WithExitCode(code, fmt.Errorf("%d of %d tests did not pass", bad, len(report.Results)))
}

func list(out *cli.IO, manifest *suite.Manifest, names []string, asJSON bool) error {
	if asJSON {
		tests := make(map[string]suite.Test, len(names))
		for _, name := range names {
			tests[name] = manifest.Tests[name]
		}
		return out.JSON(tests)
	}
	for _, name := range names {
		if _, err := fmt.Fprintln(out.Stdout, name); err != nil {
			return err
		}
	}
	return nil
}
