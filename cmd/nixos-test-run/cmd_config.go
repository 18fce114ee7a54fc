package main

import (
	"fmt"
	"maps"
	"strings"
	"text/tabwriter"

	"github.com/alecthomas/kong"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/testrun"
)

// configCmd shows a test instead of running it.
type configCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Examples implements cli's interface.
func (c *configCmd) Examples() []cli.Example {
	return []cli.Example{{Text: "what a test's wrapper passes", Command: "result/bin/nixos-test-driver config"}}
}

// setting is one value of a test.
type setting struct {
	Name   string `json:"name"` // of the flag where there is one
	Value  any    `json:"value"`
	Source source `json:"source"`
}

// machineSetting is a machine as JSON.
type machineSetting struct {
	Name        string `json:"name"`
	StartScript string `json:"start_script"`
}

// Run implements kong's command interface.
func (c *configCmd) Run(parsed *kong.Context, g *grammar, out *cli.IO) error {
	t, err := g.test(parsed, "")
	if err != nil {
		return err
	}
	settings, err := t.settings(&g.flags)
	if err != nil {
		return err
	}
	if c.JSON {
		return out.JSON(settings)
	}
	table := tabwriter.NewWriter(out.Stdout, 0, 0, 2, ' ', 0)
	for _, s := range settings {
		for i, line := range text(s.Value) {
			if i == 0 {
				fmt.Fprintf(table, "%s\t%s\t%s\n", s.Name, line, s.Source)
			} else {
				fmt.Fprintf(table, "\t%s\n", line)
			}
		}
	}
	return table.Flush()
}

// settings are all values of the test, with where they came from.
func (t *test) settings(f *flags) ([]setting, error) {
	dir, dirFrom, err := testrun.RuntimeDirectory()
	if err != nil {
		return nil, fmt.Errorf("runtime directory: %w", err)
	}
	from := maps.Clone(t.from)
	from["runtime-directory"] = source{Kind: fromDefault}
	if dirFrom != "" {
		from["runtime-directory"] = source{Kind: fromEnvironment, Name: dirFrom}
	}
	if t.file == "" {
		from["ssh-backdoor"] = source{Kind: fromDefault}
	}
	machines := []machineSetting{}
	for _, m := range t.Machines {
		machines = append(machines, machineSetting{m.Name, m.Command.Script})
	}
	all := []setting{
		{Name: "config", Value: t.file},
		{Name: "machines", Value: machines},
		{Name: "vlans", Value: append([]int{}, t.VLANs...)},
		{Name: "ssh-backdoor", Value: t.SSHBackdoor},
		{Name: "dump-vsocks", Value: t.VSOCKOffset},
		{Name: "script", Value: t.ScriptPath},
		{Name: "language", Value: string(t.ScriptLanguage())},
		{Name: "subtest", Value: t.Subtest},
		{Name: "keep-going", Value: t.KeepGoing},
		{Name: "interactive", Value: t.Interactive},
		{Name: "keep-machine-state", Value: t.KeepState},
		{Name: "debug-hook-attach", Value: t.DebugHook},
		{Name: "global-timeout", Value: t.GlobalTimeout.Seconds()},
		{Name: "boot-timeout", Value: t.BootTimeout.Seconds()},
		{Name: "warm", Value: f.Warm},
		{Name: "warm-save", Value: t.Warm.Save},
		{Name: "warm-ready", Value: t.Warm.Ready.String()},
		{Name: "warm-dir", Value: t.Warm.Store.Dir},
		{Name: "warm-from", Value: append([]string{}, t.Warm.From...)},
		{Name: "output-directory", Value: t.OutDir},
		{Name: "junit-xml", Value: t.JUnit},
		{Name: "jsonl", Value: t.JSONL},
		{Name: "html", Value: t.HTML},
		{Name: "xml-log", Value: t.XMLLog},
		{Name: "serial-dir", Value: t.SerialDir},
		{Name: "pcap", Value: t.PCAPDir},
		{Name: "log-level", Value: f.LogLevel},
		{Name: "accel", Value: string(t.Accel)},
		{Name: "serial-stdout", Value: !t.HideSerial},
		{Name: "vlan-backend", Value: string(t.VLANBackend)},
		{Name: "python", Value: t.Python},
		{Name: "runtime-directory", Value: dir},
	}
	for i := range all {
		all[i].Source = from[all[i].Name]
	}
	return all, nil
}

// text shows a value in lines, at least one.
func text(value any) []string {
	switch v := value.(type) {
	case string:
		if v == "" {
			return []string{"-"}
		}
		return []string{v}
	case []string:
		if len(v) == 0 {
			return []string{"-"}
		}
		return v
	case []machineSetting:
		lines := []string{}
		for _, m := range v {
			lines = append(lines, m.Name+": "+m.StartScript)
		}
		if len(lines) == 0 {
			return []string{"-"}
		}
		return lines
	case []int:
		if len(v) == 0 {
			return []string{"-"}
		}
		return []string{strings.Trim(fmt.Sprint(v), "[]")}
	}
	return []string{fmt.Sprint(value)}
}
