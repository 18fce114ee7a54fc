package main

import (
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/testrun"
	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/warm"
)

// flags say which test is run, and how. The tag nixpkgs marks those of nixpkgs'
// driver, in whichever release; numbers marks words that are numbers.
type flags struct {
	ConfigFile string `name:"config" short:"c" nixpkgs:"" placeholder:"FILE" help:"JSON configuration that driver.nix wrote (nixpkgs 26.05 and later)."`
	Script     string `env:"testScript" placeholder:"FILE" help:"Test script; it replaces the configuration's. The environment counts without --config only."`
	Language   string `enum:"auto,python,starlark" default:"auto" help:"What the script is written in: ${enum}. Files whose names end in .star are Starlark."`
	Subtest    string `placeholder:"REGEX" help:"Run only those subtests in whose names this regular expression is found."`
	KeepGoing  bool   `help:"Go on after a subtest that fails, and report all failures."`

	Interactive bool   `short:"I" negatable:"" nixpkgs:"" help:"Offer a prompt instead of running the script."`
	KeepState   bool   `short:"K" name:"keep-machine-state" aliases:"keep-vm-state" nixpkgs:"" help:"Keep the machines' disks of an earlier run."`
	DebugHook   string `name:"debug-hook-attach" nixpkgs:"" placeholder:"COMMAND" help:"Hold a test that fails, and say that COMMAND attaches to it (breakpointHook of nixpkgs)."`

	GlobalTimeout cli.Duration `env:"globalTimeout" nixpkgs:"" placeholder:"SECONDS" help:"End the test after this many seconds, or as long as 1h30m. Default: what the configuration says, else 3600."`
	BootTimeout   cli.Duration `default:"5m" help:"How long a machine may take from its start to its root shell."`

	Warm      string   `env:"NIXOS_TEST_WARM" enum:"off,auto,require" default:"off" help:"Start machines from saved states: ${enum}. With auto, machines boot for which there is no state that fits."`
	WarmSave  bool     `env:"NIXOS_TEST_WARM_SAVE" help:"Save the state of a machine for which there is none, with --warm=auto or require."`
	WarmReady string   `env:"NIXOS_TEST_WARM_READY" default:"shell" placeholder:"POINT" help:"When a machine is saved: shell, unit:NAME, file:PATH or command:COMMAND."`
	WarmDir   string   `env:"NIXOS_TEST_WARM_DIR" placeholder:"DIR" help:"Directory of the states. Default: $XDG_CACHE_HOME/vm-prebuild/warm."`
	WarmFrom  []string `env:"NIXOS_TEST_WARM_FROM" sep:":" placeholder:"DIR" help:"Directory of packed states, from which a state is unpacked that is in no --warm-dir yet. Can be repeated; or several with colons between them."`

	Output    string `short:"o" name:"output-directory" aliases:"output_directory" nixpkgs:"" default:"." placeholder:"DIR" help:"Directory for results, which must exist (default: the current one)."`
	JUnitXML  string `name:"junit-xml" nixpkgs:"" placeholder:"FILE" help:"Write a JUnit report, relative to the output directory."`
	JSONL     string `name:"jsonl" placeholder:"FILE" help:"Write every event as a line of JSON, relative to the output directory."`
	HTML      string `name:"html" placeholder:"FILE" help:"Write a report as one HTML page, relative to the output directory."`
	XMLLog    string `name:"xml-log" env:"LOGFILE" placeholder:"FILE" help:"Write the log as nixpkgs' XML."`
	SerialDir string `name:"serial-dir" placeholder:"DIR" help:"Write the console of each machine to a file, relative to the output directory."`
	PCAPDir   string `name:"pcap" placeholder:"DIR" help:"Capture the packets of each VLAN in a file, relative to the output directory."`
	LogLevel  string `env:"logLevel" nixpkgs:"" enum:"debug,info,warning,error" default:"info" help:"Lowest level of messages shown: ${enum}. What a script logs, its steps and the consoles are shown at every level."`

	SerialStdout bool `name:"serial-stdout" negatable:"" default:"true" help:"Show the machines' consoles in the log, which scripts change with serial_stdout_on() and serial_stdout_off(). Reports have them all the same."`

	Accel       string `enum:"auto,kvm,tcg" default:"auto" help:"What the machines run under: ${enum}. auto takes KVM where guest code really runs under it, else TCG, which is many times slower."`
	VLANBackend string `name:"vlan-backend" enum:"hub,vde_switch" default:"hub" help:"What connects the machines: ${enum}."`
	Python      string `env:"NIXOS_TEST_PYTHON" default:"python3" help:"Interpreter of Python scripts, 3.11 or later."`

	StartScripts          words `group:"old" nixpkgs:"" env:"startScripts" placeholder:"SCRIPT ..." help:"Start scripts of the machines."`
	VMNames               words `group:"old" nixpkgs:"" name:"vm-names" env:"vmNames" placeholder:"NAME ..." help:"Names of the machines, in the order of --vm-start-scripts."`
	VMStartScripts        words `group:"old" nixpkgs:"" name:"vm-start-scripts" env:"vmStartScripts" placeholder:"SCRIPT ..." help:"Start scripts of the machines."`
	ContainerNames        words `group:"old" nixpkgs:"" hidden:"" env:"containerNames"`
	ContainerStartScripts words `group:"old" nixpkgs:"" hidden:"" env:"containerStartScripts"`
	VLANs                 words `group:"old" nixpkgs:"" numbers:"" name:"vlans" env:"vlans" placeholder:"N ..." help:"VLAN numbers."`
	DumpVSOCKs            int   `group:"old" nixpkgs:"" name:"dump-vsocks" placeholder:"OFFSET" help:"Say how SSH reaches the machines, whose vsock identifiers count from OFFSET + 1."`
}

// oldFlags describe a test without a configuration file, and do not go with one.
var oldFlags = []string{"start-scripts", "vm-names", "vm-start-scripts", "container-names", "container-start-scripts", "vlans"}

// test is a test that the flags describe, and how to run it.
type test struct {
	testrun.Config
	testrun.Options
	file string  // configuration file; "" for none
	from sources // of the values
}

// test resolves the flags. A script that is not "" was given as an argument.
func (f *flags) test(parsed *kong.Context, script string) (*test, error) {
	t := &test{file: f.ConfigFile, from: sourcesOf(parsed)}
	if err := f.machines(t); err != nil {
		return nil, err
	}
	if err := f.script(t, script); err != nil {
		return nil, err
	}
	if t.from["global-timeout"].Kind != fromDefault && t.counts("global-timeout") {
		t.GlobalTimeout = time.Duration(f.GlobalTimeout)
	} else if f.ConfigFile != "" {
		t.from["global-timeout"] = source{Kind: fromFile, Name: f.ConfigFile}
	}
	t.OutDir = f.Output
	t.KeepState, t.KeepGoing = f.KeepState, f.KeepGoing
	t.Subtest = f.Subtest
	t.Python = f.Python
	t.BootTimeout = time.Duration(f.BootTimeout)
	t.Accel = testrun.Accel(f.Accel)
	t.VLANBackend = testrun.VLANBackend(f.VLANBackend)
	t.PCAPDir = f.PCAPDir
	t.DebugHook = f.DebugHook
	if err := f.warm(t); err != nil {
		return nil, err
	}
	t.VSOCKOffset = f.DumpVSOCKs
	t.Options = testrun.Options{
		Interactive: f.Interactive,
		Log:         os.Stderr,
		LogLevel:    levels[f.LogLevel],
		HideSerial:  !f.SerialStdout,
		Colours:     term.IsTerminal(int(os.Stderr.Fd())) && os.Getenv("NO_COLOR") == "",
		JUnit:       f.JUnitXML,
		JSONL:       f.JSONL,
		HTML:        f.HTML,
		XMLLog:      f.XMLLog,
		SerialDir:   f.SerialDir,
	}
	for _, path := range []*string{&t.ScriptPath, &t.OutDir, &t.XMLLog} {
		if err := absolute(path); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// warm sets whether machines start from saved states.
func (f *flags) warm(t *test) (err error) {
	t.Warm.Mode, t.Warm.Save = warm.Mode(f.Warm), f.WarmSave
	if f.KeepState && t.from["warm"].Kind == fromEnvironment {
		t.Warm.Mode = warm.Off // the wrapper of a test has a wish, its user has another
	}
	if t.Warm.Ready, err = warm.ParseReady(f.WarmReady); err != nil {
		return cli.Usagef("--warm-ready: %w", err)
	}
	if t.Warm.Save && !t.Warm.Enabled() {
		return cli.Usagef("--warm-save has no effect without --warm\nhint: say --warm=auto")
	}
	t.Warm.Store.Dir = f.WarmDir
	if f.WarmDir == "" && t.Warm.Enabled() {
		if t.Warm.Store.Dir, err = warm.DefaultDir(); err != nil {
			return err
		}
	}
	for _, dir := range f.WarmFrom {
		if dir == "" {
			continue // of a variable that another was added to
		}
		if err := absolute(&dir); err != nil {
			return err
		}
		t.Warm.From = append(t.Warm.From, dir)
	}
	return absolute(&t.Warm.Store.Dir)
}

var levels = map[string]event.Level{
	"debug": event.Debug, "info": event.Info, "warning": event.Warning, "error": event.Error,
}

// counts says whether the value of a flag is of this test: what the environment
// says for wrappers of before 26.05 does not change a configuration file.
func (t *test) counts(flag string) bool {
	return t.file == "" || t.from[flag].Kind == fromFlag
}

// machines sets machines and VLANs, and what else a configuration file has.
func (f *flags) machines(t *test) (err error) {
	if f.ConfigFile != "" {
		for _, name := range oldFlags {
			if t.from[name].Kind == fromFlag {
				return cli.Usagef("--%s does not go with --config: the configuration has the machines and VLANs", name)
			}
		}
		if t.Config, err = testrun.ReadConfig(f.ConfigFile); err != nil {
			return err
		}
		for _, name := range []string{"machines", "vlans", "ssh-backdoor"} {
			t.from[name] = source{Kind: fromFile, Name: f.ConfigFile}
		}
		return nil
	}
	if len(f.ContainerNames)+len(f.ContainerStartScripts) > 0 {
		return cli.Usagef("there are containers, and there is no backend for containers\nhint: make them nodes of the test instead")
	}
	for _, text := range f.VLANs {
		number, err := strconv.Atoi(text)
		if err != nil {
			return cli.Usagef("--vlans: %q is not a number\nhint: a test script comes before --vlans, or after --", text)
		}
		t.VLANs = append(t.VLANs, number)
	}
	t.GlobalTimeout = testrun.DefaultGlobalTimeout
	scripts := f.VMStartScripts
	t.from["machines"] = t.from["vm-start-scripts"]
	if len(scripts) == 0 {
		scripts = f.StartScripts
		t.from["machines"] = t.from["start-scripts"]
	}
	return t.UseStartScripts(f.VMNames, scripts)
}

// script sets the script: an argument comes before the flag, that before the
// configuration or, without one, the environment.
func (f *flags) script(t *test, argument string) error {
	switch {
	case argument != "":
		if t.from["script"].Kind == fromFlag {
			return cli.Usagef("there are two test scripts: %s and --script %s", argument, f.Script)
		}
		t.ScriptPath = argument
		t.from["script"] = source{Kind: fromArgument}
	case f.Script != "" && t.counts("script"):
		t.ScriptPath = f.Script
	case f.ConfigFile != "":
		t.from["script"] = source{Kind: fromFile, Name: f.ConfigFile}
	}
	if f.Language != "auto" {
		t.Language = testrun.Language(f.Language)
	}
	return nil
}

// absolute makes a path absolute that is not "": others start with the working
// directory of the driver, whatever the script does.
func absolute(path *string) (err error) {
	if *path != "" {
		*path, err = filepath.Abs(*path)
	}
	return err
}
