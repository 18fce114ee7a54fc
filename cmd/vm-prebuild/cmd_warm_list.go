package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/testrun/warm"
)

type warmListCommand struct {
	warmStore
	JSON bool `name:"json" help:"Print JSON instead of a table."`
}

// Run lists the states.
func (c *warmListCommand) Run(out *cli.IO) error {
	store, err := c.open()
	if err != nil {
		return err
	}
	all, err := store.List()
	if err != nil {
		return err
	}
	return writeStates(out, all, c.JSON)
}

func writeStates(out *cli.IO, all []warm.Entry, asJSON bool) error {
	if asJSON {
		return out.JSON(append([]warm.Entry{}, all...))
	}
	return writeStateTable(out.Stdout, all)
}

func writeStateTable(w io.Writer, all []warm.Entry) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, e := range all {
		fmt.Fprintf(table, "%s\t%s\t%s\tused %s\t%s\n", e.Key, e.Ready, megabytes(e.Bytes), e.Used.Local().Format(time.DateTime), e.Problem)
	}
	return table.Flush()
}
