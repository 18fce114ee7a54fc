package doctor

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteText writes the report as text: a check a line, below it what mends what
// is not well, and a line that sums up.
func (r *Report) WriteText(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range r.Checks {
		fmt.Fprintf(table, "%s\t%s\t%s\n", c.State, c.Check, c.Finding)
		for line := range strings.Lines(c.Remedy) {
			fmt.Fprintf(table, "\t\t→ %s\n", strings.TrimSuffix(line, "\n"))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, r.Summary())
	return err
}

// Summary says whether tests can run.
func (r *Report) Summary() string {
	verdict := "VM tests can run here"
	if !r.CanRun {
		verdict = "VM tests cannot run here"
	}
	return fmt.Sprintf("%s: %d ok, %d warnings, %d missing", verdict, r.Count(OK), r.Count(Warning), r.Count(Missing))
}
