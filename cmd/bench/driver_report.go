package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"vm-prebuild/cmd/internal/cli"
)

// driverRow is a line of the table.
type driverRow struct {
	What      string  `json:"what"`
	Guest     string  `json:"guest"`
	Unit      string  `json:"unit"`
	Theirs    float64 `json:"theirs"`
	Ours      float64 `json:"ours"`
	Target    string  `json:"target,omitempty"`
	Elsewhere string  `json:"elsewhere,omitempty"` // the Python driver itself, measured elsewhere
	Verdict   string  `json:"verdict"`
}

const (
	reachedTarget = "ok"
	missedTarget  = "MISSED"
)

// driverLine says how a figure is shown and judged.
type driverLine struct {
	figure    string // name and guest
	what      string
	unit      string
	factor    float64 // from seconds, bytes or parts of a core to the unit
	ratio     float64 // theirs must be so many times ours; 0: not judged
	limit     float64 // ours must be less; 0: not judged
	elsewhere string
	alone     bool // there is nothing to compare it with
}

var driverLines = []driverLine{
	{figure: "start played", what: "from exec to the start script", unit: "ms", factor: 1000, limit: 100, elsewhere: "433"},
	{figure: "command played", what: `succeed("true")`, unit: "ms", factor: 1000, elsewhere: "2.6 to 2.8"},
	{figure: "own played", what: "the driver's own share of that", unit: "ms", factor: 1000, limit: 0.3, elsewhere: "0.2 to 0.3"},
	{figure: "command mini", what: `succeed("true")`, unit: "ms", factor: 1000, ratio: 1.5},
	{figure: "command systemd", what: `succeed("true")`, unit: "ms", factor: 1000, ratio: 1.5},
	{figure: "memory played", what: "memory, at most", unit: "MiB", factor: 1.0 / (1 << 20), limit: 50, elsewhere: "50"},
	{figure: "idle-console played", what: "CPU in wait_for_console_text", unit: "%", factor: 100, limit: 1, elsewhere: "99.6"},
	{figure: "idle-unit played", what: "CPU in wait_for_unit", unit: "%", factor: 100, limit: 1},
	{figure: "wait-file mini", what: "wait_for_file is late by", unit: "ms", factor: 1000, limit: 50, elsewhere: "487 to 521"},
	{figure: "wait-command mini", what: "wait_until_succeeds is late by", unit: "ms", factor: 1000, limit: 50},
	{figure: "wait-port mini", what: "wait_for_open_port is late by", unit: "ms", factor: 1000},
	{figure: "wait-unit mini", what: "wait_for_unit is late by", unit: "ms", factor: 1000, limit: 50},
	{figure: "wait-sum mini", what: "20 waits lose", unit: "s", factor: 1, limit: 1},
	{figure: "wait-file systemd", what: "wait_for_file is late by", unit: "ms", factor: 1000, limit: 50, elsewhere: "487 to 521"},
	{figure: "wait-command systemd", what: "wait_until_succeeds is late by", unit: "ms", factor: 1000, limit: 50},
	{figure: "wait-port systemd", what: "wait_for_open_port is late by", unit: "ms", factor: 1000},
	{figure: "wait-unit systemd", what: "wait_for_unit is late by", unit: "ms", factor: 1000, limit: 50},
	{figure: "wait-sum systemd", what: "20 waits lose", unit: "s", factor: 1, limit: 1},
	{figure: "copy-in-shared mini", what: "copy 64 MiB in", unit: "s", factor: 1, ratio: 1},
	{figure: "copy-out-shared mini", what: "copy 64 MiB out", unit: "s", factor: 1, ratio: 1},
	{figure: "copy-in-shell mini", what: "copy 64 MiB in, no shared directory", unit: "s", factor: 1, ratio: 5},
	{figure: "copy-out-shell mini", what: "copy 64 MiB out, no shared directory", unit: "s", factor: 1, ratio: 5},
}

// table is what a report looks like.
type table struct {
	lines   []driverLine
	heads   []string
	heading string // begins the section of the document
	intro   func(*driverReport) string
}

var driverTable = table{
	lines:   driverLines,
	heads:   []string{"what", "guest", "Python's algorithm", "nixos-test-run", "ratio", "target", "", "Python driver elsewhere"},
	heading: driverHeading,
	intro: func(r *driverReport) string {
		missing := ""
		if r.missing != "" {
			missing = " (here it does not import " + r.missing + ", which are not installed)"
		}
		return fmt.Sprintf(driverIntro, r.machine, missing, r.failures())
	},
}

// driverReport is all that was measured, and where.
type driverReport struct {
	table
	ours, theirs figures
	judged       bool
	runs         int
	machine      string
	missing      string
	lost         []string // jobs whose run of Python's algorithm failed
}

// describe notes where this is.
func (r *driverReport) describe(ctx context.Context) error {
	const script = `sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1
qemu-system-x86_64 --version | sed -n 's/ (.*//; 1p'
python3 --version
git rev-parse --short=12 HEAD 2>/dev/null || echo unknown
cut -d' ' -f1-3 /proc/loadavg`
	out, err := exec.CommandContext(ctx, "bash", "-c", script).Output()
	if err != nil {
		return fmt.Errorf("describe this machine: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 5 {
		return fmt.Errorf("describe this machine: %q", out)
	}
	r.machine = fmt.Sprintf("%s, %d cores, %s, %s; commit %s; %s; load %s; medians of %d runs",
		lines[0], runtime.NumCPU(), lines[1], lines[2], lines[3], time.Now().UTC().Format(time.DateOnly), lines[4], r.runs)
	return nil
}

// failures tells of the runs of Python's algorithm that gave no figure.
func (r *driverReport) failures() string {
	if len(r.lost) == 0 {
		return ""
	}
	return fmt.Sprintf(" Runs of Python's algorithm that failed or hung, and are not counted: %s.", strings.Join(r.lost, ", "))
}

// rows are the lines for which there are figures.
func (r *driverReport) rows() []driverRow {
	var rows []driverRow
	for _, l := range r.lines {
		ours, theirs := r.ours.median(l.figure), r.theirs.median(l.figure)
		if l.alone {
			theirs = 0
		}
		if math.IsNaN(ours) || math.IsNaN(theirs) {
			continue
		}
		_, guest, _ := strings.Cut(l.figure, " ")
		row := driverRow{What: l.what, Guest: guest, Unit: l.unit, Ours: ours * l.factor, Theirs: theirs * l.factor, Elsewhere: l.elsewhere, Verdict: "not judged"}
		ok := true
		switch {
		case l.ratio > 0:
			row.Target = fmt.Sprintf("%g × faster", l.ratio)
			ok = row.Theirs >= l.ratio*row.Ours
		case l.limit > 0:
			row.Target = fmt.Sprintf("≤ %g %s", l.limit, l.unit)
			ok = row.Ours <= l.limit
		}
		switch {
		case row.Target == "" || !r.judged:
		case ok:
			row.Verdict = reachedTarget
		default:
			row.Verdict = missedTarget
		}
		rows = append(rows, row)
	}
	return rows
}

// cells are those of as many columns as there are heads.
func (r *driverReport) cells(row driverRow) []string {
	figure := func(v float64) string {
		if v == 0 {
			return "–"
		}
		digits := 3
		if v >= 100 {
			digits = int(math.Log10(v)) + 1
		}
		return strconv.FormatFloat(v, 'g', digits, 64) + " " + row.Unit
	}
	ratio := "–"
	if row.Ours > 0 && row.Theirs > 0 {
		ratio = fmt.Sprintf("%.1f ×", row.Theirs/row.Ours)
	}
	elsewhere := "–"
	if row.Elsewhere != "" {
		elsewhere = row.Elsewhere + " " + row.Unit
	}
	return []string{row.What, row.Guest, figure(row.Theirs), figure(row.Ours), ratio, row.Target, row.Verdict, elsewhere}[:len(r.heads)]
}

func (r *driverReport) text(rows []driverRow) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s.%s\n\n", r.machine, r.failures())
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, strings.Join(r.heads, "\t"))
	for _, row := range rows {
		fmt.Fprintln(table, strings.Join(r.cells(row), "\t"))
	}
	_ = table.Flush() // a strings.Builder takes everything
	return text.String()
}

// driverHeading begins the section of the document.
const driverHeading = "\n## The driver\n"

const driverIntro = `
Written by ` + "`bench driver --markdown`" + `, not by hand. %s.

"Python's algorithm" is [cmd/bench/testdata/driver/python_driver.py](../cmd/bench/testdata/driver/python_driver.py),
a program of ours that does what nixpkgs' driver does where time goes, and less of
all else%s. Both sides run the same scripts, which are beside it, in
the same Python, and take turns. A *played* guest is a bash on a terminal of this
machine: what is measured there is the driver. *mini* and *systemd* are the guests of
nix/offline. The driver's own share is the time for which the played guest waits for
the next command. A wait is late by the time between the readiness of what it waits
for and its return, to 10 ms; for a port, the start of the program that listens is in
it. Memory is that of driver, interpreter and supervisor together. Without a shared
directory, Python's algorithm copies 2 MiB, and the time is taken 32 times. The last column
has what nixpkgs' driver itself needed on another machine.%s

`

// writeMarkdown replaces the section of the document.
func (r *driverReport) writeMarkdown(file string, rows []driverRow) error {
	var section strings.Builder
	section.WriteString(r.intro(r))
	fmt.Fprintf(&section, "| %s |\n|%s\n", strings.Join(r.heads, " | "), strings.Repeat("---|", len(r.heads)))
	for _, row := range rows {
		fmt.Fprintf(&section, "| %s |\n", strings.Join(r.cells(row), " | "))
	}
	return writeSection(file, r.heading, section.String())
}

// print shows the report, and writes it into a document if there is one.
func (r *driverReport) print(out *cli.IO, rows []driverRow, asJSON bool, document string) error {
	var err error
	if asJSON {
		err = out.JSON(rows)
	} else {
		_, err = io.WriteString(out.Stdout, r.text(rows))
	}
	if err == nil && document != "" {
		err = r.writeMarkdown(document, rows)
	}
	return err
}

// missedOf is an error that names the lines that missed their target.
func missedOf(rows []driverRow) error {
	var missed []string
	for _, row := range rows {
		if row.Verdict == missedTarget {
			missed = append(missed, row.What+", "+row.Guest)
		}
	}
	if missed == nil {
		return nil
	}
	return cli.WithExitCode(cli.ExitFailed, fmt.Errorf("missed: %s", strings.Join(missed, "; ")))
}
