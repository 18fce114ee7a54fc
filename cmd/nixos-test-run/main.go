// Command nixos-test-run runs one NixOS VM test. It takes the command lines,
// configuration files and environment of nixpkgs' nixos-test-driver.
package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/term"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/testrun"
	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/reaper"
)

type grammar struct {
	Config string `short:"c" type:"path" placeholder:"FILE" help:"JSON configuration that driver.nix wrote (nixpkgs 26.05 and later)."`

	StartScripts   []string `name:"start-scripts" sep:" " env:"startScripts" placeholder:"SCRIPT" help:"Start scripts of the machines (nixpkgs up to 25.11; not with --config)."`
	VMNames        []string `name:"vm-names" sep:" " env:"vmNames" placeholder:"NAME" help:"Names of the machines, in the order of --vm-start-scripts (not with --config)."`
	VMStartScripts []string `name:"vm-start-scripts" sep:" " env:"vmStartScripts" placeholder:"SCRIPT" help:"Start scripts of the machines (not with --config)."`
	VLANs          []int    `name:"vlans" sep:" " env:"vlans" placeholder:"N" help:"VLAN numbers (not with --config)."`
	GlobalTimeout  *int     `env:"globalTimeout" placeholder:"SECONDS" help:"End the test after this many seconds. Default: what the configuration says, else 3600."`
	Script         string   `arg:"" optional:"" type:"path" env:"testScript" help:"Test script; it replaces the configuration's."`

	Output      string        `short:"o" name:"output-directory" aliases:"output_directory" type:"existingdir" default:"." placeholder:"DIR" help:"Directory for results, which must exist (default: the current one)."`
	Interactive bool          `short:"I" negatable:"" help:"Offer a Python prompt instead of running the script."`
	KeepState   bool          `short:"K" name:"keep-machine-state" aliases:"keep-vm-state" help:"Keep the machines' disks of an earlier run."`
	JUnitXML    string        `name:"junit-xml" placeholder:"FILE" help:"Write a JUnit report, relative to the output directory."`
	LogLevel    string        `env:"logLevel" enum:"debug,info,warning,error" default:"info" help:"Lowest level of messages shown: ${enum}. What a script logs, its steps and the consoles are shown at every level."`
	DebugHook   string        `name:"debug-hook-attach" aliases:"debug-hook" hidden:"" help:"Accepted for nixpkgs' run.nix."`
	BootTimeout time.Duration `default:"5m" help:"How long a machine may take from its start to its root shell."`
	VLANBackend string        `name:"vlan-backend" enum:"hub,vde_switch" default:"hub" help:"What connects the machines: ${enum}."`
	Python      string        `env:"NIXOS_TEST_PYTHON" default:"python3" help:"Interpreter of Python scripts, 3.11 or later."`
}

var levels = map[string]event.Level{
	"debug": event.Debug, "info": event.Info, "warning": event.Warning, "error": event.Error,
}

// Run implements kong's command interface.
func (g *grammar) Run(ctx context.Context) error {
	cfg, err := g.config()
	if err != nil {
		return err
	}
	return testrun.Run(ctx, cfg, testrun.Options{
		Interactive: g.Interactive,
		Log:         os.Stderr,
		LogLevel:    levels[g.LogLevel],
		Colours:     term.IsTerminal(int(os.Stderr.Fd())) && os.Getenv("NO_COLOR") == "",
		JUnit:       g.JUnitXML,
	})
}

func (g *grammar) config() (cfg testrun.Config, err error) {
	switch {
	case g.Config != "":
		if cfg, err = testrun.ReadConfig(g.Config); err != nil {
			return cfg, err
		}
	default:
		cfg.VLANs = g.VLANs
		cfg.GlobalTimeout = testrun.DefaultGlobalTimeout
		scripts := g.VMStartScripts
		if len(scripts) == 0 {
			scripts = g.StartScripts
		}
		if err = cfg.UseStartScripts(g.VMNames, scripts); err != nil {
			return cfg, err
		}
	}
	if g.GlobalTimeout != nil {
		cfg.GlobalTimeout = time.Duration(*g.GlobalTimeout) * time.Second
	}
	if g.Script != "" {
		cfg.ScriptPath = g.Script
	}
	if cfg.ScriptPath == "" && !g.Interactive {
		return cfg, cli.Usagef("there is neither a configuration nor a test script\nhint: pass --config FILE, or start scripts and a test script")
	}
	cfg.OutDir, err = filepath.Abs(g.Output)
	cfg.KeepState = g.KeepState
	cfg.BootTimeout = g.BootTimeout
	cfg.VLANBackend = testrun.VLANBackend(g.VLANBackend)
	cfg.Python = g.Python
	return cfg, err
}

func main() {
	reaper.Main()
	cli.App{
		Name:        "nixos-test-run",
		Rewrite:     argparse,
		EmptyValues: true, // nixpkgs' wrappers may give them
		Description: "Run one NixOS VM test: machines, VLANs and a Python test script.",
		Examples: []cli.Example{
			{Text: "run a test as its wrapper does", Command: "nixos-test-run --config driver-configuration.json -o results"},
			{Text: "the same machines, another script", Command: "nixos-test-run --config driver-configuration.json my-script.py"},
			{Text: "try things by hand", Command: "nixos-test-run --config driver-configuration.json -I"},
		},
		ExitStatus: []cli.Status{
			{Code: cli.ExitOK, Meaning: "the test passed"},
			{Code: cli.ExitFailed, Meaning: "the test failed; a script that calls sys.exit(n) decides itself"},
			{Code: cli.ExitUsage, Meaning: "wrong usage or configuration, or a script that does not compile"},
			{Code: cli.ExitInfrastructure, Meaning: "a machine, the interpreter or the host gave out"},
			{Code: cli.ExitTimeout, Meaning: "the test's global time-out was reached"},
		},
	}.Main(&grammar{})
}
