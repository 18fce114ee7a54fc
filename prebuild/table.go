package prebuild

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"vm-prebuild/testrun/suite"
)

// WriteTable writes the plan as text, a test a line, and a line that sums up.
func (p *Plan) WriteTable(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "TEST\tBUILD\tFETCH\tDOWNLOAD\tREADY\n")
	for _, t := range p.Tests {
		ready := "no"
		if t.Ready() {
			ready = "yes"
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\n", t.Name, len(t.Build), len(t.Fetch), size(t.DownloadBytes), ready)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s, %d ready; all together: %s to build, %s to fetch (%s)\n", plural(len(p.Tests), "test"),
		p.Ready(), plural(len(p.Build), "derivation"), plural(len(p.Fetch), "path"), size(p.DownloadBytes))
	if err != nil || len(p.Shards) == 0 {
		return err
	}
	table = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "\nSHARD\tTIME\tTESTS\n")
	for _, s := range p.Shards {
		time := "unknown"
		if s.Seconds > 0 {
			time = fmt.Sprintf("%.1f s", s.Seconds)
		}
		fmt.Fprintf(table, "%d/%d\t%s\t%s\n", s.Number, s.Of, time, strings.Join(s.Tests, " "))
	}
	return table.Flush()
}

// WriteTestTable writes the tests of a manifest as text, a test a line.
func WriteTestTable(w io.Writer, m *suite.Manifest) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "TEST\tMACHINES\tCORES\tMEMORY\tVLANS\tTIME-OUT\n")
	for _, name := range m.Names() {
		t := m.Tests[name]
		fmt.Fprintf(table, "%s\t%d\t%d\t%d MiB\t%d\t%v\n",
			name, len(t.Machines), t.Cores(), t.MemoryMiB(), len(t.VLANs), t.GlobalTimeout())
	}
	return table.Flush()
}

func size(bytes int64) string {
	value, units := float64(bytes), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for value >= 1024 && len(units) > 1 {
		value, units = value/1024, units[1:]
	}
	if units[0] == "B" {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%.1f %s", value, units[0])
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
