package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"vm-prebuild/buildhook"
	"vm-prebuild/buildhook/admission"
	"vm-prebuild/cmd/internal/cli"
)

type statusCommand struct {
	shared
	JSON bool `name:"json" help:"Print JSON instead of text."`
}

// Examples are shown in the help.
func (statusCommand) Examples() []cli.Example {
	return []cli.Example{
		{Text: "What is running, and what waits?", Command: "nix-vm-build-hook status"},
		{Text: "How much memory do the tests have that run?", Command: "nix-vm-build-hook status --json | jq .used.memoryMiB"},
	}
}

// Run prints the status.
func (c *statusCommand) Run(out *cli.IO) error {
	dir, err := c.dir()
	if err != nil {
		return err
	}
	budget, err := c.budget()
	if err != nil {
		return err
	}
	s, err := buildhook.ReadStatus(dir, budget)
	if err != nil {
		return err
	}
	if c.JSON {
		return out.JSON(s)
	}
	w := tabwriter.NewWriter(out.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "memory\t%d of %d MiB\ncores\t%d of %d\nrunning\t%d\nwaiting\t%d\n", s.Used.MemoryMiB, s.Budget.MemoryMiB, s.Used.Cores, s.Budget.Cores, len(s.Running), len(s.Waiting))
	if len(s.Running)+len(s.Waiting) > 0 {
		fmt.Fprint(w, "\nSTATE\tFOR\tPROCESS\tMACHINES\tMEMORY\tCORES\tDERIVATION\n")
		for _, tickets := range [][]admission.Ticket{s.Running, s.Waiting} {
			for _, t := range tickets {
				fmt.Fprintf(w, "%s\t%v\t%d\t%d\t%d MiB\t%d\t%s\n", t.State, time.Since(t.Since).Round(time.Second), t.PID, t.Demand.Machines, t.Demand.MemoryMiB, t.Demand.Cores, t.Name)
			}
		}
	}
	return w.Flush()
}
