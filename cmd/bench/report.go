package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// maxRSS is how much memory our tools may take, whatever the closure.
const maxRSS = 256 << 20

// report is all that was measured, and where.
type report struct {
	CPU     string    `json:"cpu"`
	Cores   int       `json:"cores"`
	Memory  int64     `json:"memoryBytes"`
	Kernel  string    `json:"kernel"`
	Nix     string    `json:"nix"`
	Commit  string    `json:"commit"`
	Date    time.Time `json:"date"`
	Load    string    `json:"load"` // average when it began
	Runs    int       `json:"runs"`
	Scale   float64   `json:"scale"`
	Results []result  `json:"results"`
}

// result is a line of the table with its figures.
type result struct {
	Line   string  `json:"line"`
	Ours   side    `json:"ours"`
	Theirs side    `json:"theirs"`
	Ratio  float64 `json:"ratio"` // of the medians of wall time; 0 if a side failed
	Target float64 `json:"target"`
	Size   float64 `json:"size,omitempty"` // of what ours wrote, in relation to theirs; 0 if that is not of interest
	Judged bool    `json:"judged"`
	OK     bool    `json:"ok"` // reached the target, if judged, and neither side failed
}

// side is what one of the two sides did.
type side struct {
	Name    string   `json:"name"`
	Wall    spread   `json:"wall"`
	CPU     spread   `json:"cpu"`
	MaxRSS  int64    `json:"maxRssBytes"`
	Samples []sample `json:"samples"`
	Error   string   `json:"error,omitempty"`
}

func newReport(ctx context.Context, l *lab, runs int, scale float64) (*report, error) {
	r := &report{Cores: runtime.NumCPU(), Date: time.Now().UTC().Truncate(time.Second), Runs: runs, Scale: scale}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, fmt.Errorf("name of the kernel: %w", err)
	}
	r.Kernel = unix.ByteSliceToString(name.Release[:])
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, fmt.Errorf("size of memory: %w", err)
	}
	r.Memory = int64(info.Totalram) * int64(info.Unit)
	for command, result := range map[string]*string{
		`nix --version`: &r.Nix,
		`sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1`: &r.CPU,
		`cut -d' ' -f1-3 /proc/loadavg`:                                     &r.Load,
	} {
		text, err := l.output(ctx, command)
		if err != nil {
			return nil, fmt.Errorf("describe this machine: %w", err)
		}
		*result = strings.TrimSpace(text)
	}
	// A copy of the tree without its history is measured just as well.
	commit := l.shell(ctx, `git rev-parse --short=12 HEAD; git diff --quiet HEAD || echo "with changes"`)
	commit.Dir = ""
	if text, err := output(commit); err == nil {
		r.Commit = strings.Join(strings.Fields(text), " ")
	}
	return r, nil
}

// add puts a line into the report.
func (r *report) add(l line, all *results) {
	res := result{Line: l.name, Ours: all.side(l.ours), Theirs: all.side(l.theirs), Target: l.target, Judged: r.Scale == 1 && l.target > 0}
	res.OK = res.Ours.Error == "" && res.Theirs.Error == ""
	if res.OK {
		res.Ratio = res.Theirs.Wall.Median.Seconds() / res.Ours.Wall.Median.Seconds()
		if l.sizes {
			res.Size = float64(res.Ours.size()) / float64(res.Theirs.size())
		}
		if res.Judged {
			res.OK = res.Ratio >= res.Target && res.Size <= 1 && res.Ours.MaxRSS <= maxRSS
		}
	}
	r.Results = append(r.Results, res)
}

func (r *results) side(name string) side {
	if err := r.failed[name]; err != nil {
		return side{Name: name, Error: err.Error()}
	}
	samples := r.samples[name]
	s := side{Name: name, Samples: samples}
	s.Wall = spreadOf(samples, func(s sample) time.Duration { return s.Wall })
	s.CPU = spreadOf(samples, func(s sample) time.Duration { return s.CPU })
	for _, sample := range samples {
		s.MaxRSS = max(s.MaxRSS, sample.MaxRSS)
	}
	return s
}

// size is what the check of the last run printed.
func (s side) size() int64 {
	n, _ := strconv.ParseInt(s.Samples[len(s.Samples)-1].Note, 10, 64) // checks that print no size are not asked
	return n
}

// bad names the lines that are not as they should be.
func (r *report) bad() []string {
	var bad []string
	for _, res := range r.Results {
		if !res.OK {
			bad = append(bad, res.Line)
		}
	}
	return bad
}

// verdict is what became of a line.
func (res *result) verdict() string {
	switch {
	case res.Ours.Error != "":
		return "FAILED: " + res.Ours.Name
	case res.Theirs.Error != "":
		return "FAILED: " + res.Theirs.Name
	case !res.Judged:
		return "not judged"
	case res.Ratio < res.Target:
		return "MISSED"
	case res.Size > 1:
		return fmt.Sprintf("TOO LARGE: %.4f of theirs", res.Size)
	case res.Ours.MaxRSS > maxRSS:
		return "TOO MUCH MEMORY"
	}
	return "ok"
}

// row is what the tables show of a line.
func (res *result) row() []string {
	const none = "–"
	row := []string{res.Line, res.Theirs.Name, none, none, none, none, res.verdict(), none, none}
	if res.Target > 0 {
		row[5] = fmt.Sprintf("%g ×", res.Target)
	}
	if res.Ratio > 0 {
		row[2], row[3], row[4] = res.Theirs.Wall.String(), res.Ours.Wall.String(), fmt.Sprintf("%.2f ×", res.Ratio)
		row[7] = seconds(res.Theirs.CPU.Median) + " : " + seconds(res.Ours.CPU.Median)
		row[8] = strconv.FormatInt(res.Ours.MaxRSS>>20, 10) + " MiB"
	}
	return row
}

var heads = []string{"job", "against", "theirs, s", "ours, s", "faster", "target", "", "CPU s", "memory"}

func (r *report) text() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n\n", r.machine())
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, strings.Join(heads, "\t"))
	for _, res := range r.Results {
		fmt.Fprintln(table, strings.Join(res.row(), "\t"))
	}
	_ = table.Flush() // a strings.Builder takes everything
	return text.String()
}

func (r *report) machine() string {
	return fmt.Sprintf("%s, %d cores, %d GiB, Linux %s, %s; commit %s; %s; load %s; medians of %d (lowest..highest), scale %g",
		r.CPU, r.Cores, r.Memory>>30, r.Kernel, r.Nix, r.Commit, r.Date.Format(time.DateOnly), r.Load, r.Runs, r.Scale)
}

const markdownIntro = `# Benchmarks

Written by ` + "`bench run --markdown`" + `, not by hand. %s.

The two sides of a line take turns. Each run is on a fresh copy of the same file
system, which is ext4 unless the line says otherwise; it lies in memory, all its
files are in the page cache, and nothing is left to write. After each run Nix
says whether the job has been done. The command lines are in
[cmd/bench/jobs.go](../cmd/bench/jobs.go); the closure has 3,000 paths, 57,000
files and 1.4 GB unless the line says otherwise.

Figures are seconds of wall-clock time: the median and, in parentheses, the
lowest and highest. CPU is user and system time of theirs : ours, and memory the
largest resident size of ours, of which 256 MiB are allowed; what is less than the
benchmark's own is shown as that. "clan-core's method" is cp of all paths, two at a
time, and nix-store --load-db.

`

// writeMarkdown writes the report as a document, and keeps its sections.
func (r *report) writeMarkdown(file string) error {
	var text strings.Builder
	fmt.Fprintf(&text, markdownIntro, r.machine())
	fmt.Fprintf(&text, "| %s |\n|%s\n", strings.Join(heads, " | "), strings.Repeat("---|", len(heads)))
	for _, res := range r.Results {
		fmt.Fprintf(&text, "| %s |\n", strings.Join(res.row(), " | "))
	}
	_, sections, err := readDocument(file)
	if err != nil {
		return err
	}
	return writeFile(file, text.String()+strings.Join(sections, ""))
}

// readDocument splits a document, if there is one, before the headings of its
// sections.
func readDocument(file string) (beginning string, sections []string, err error) {
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return "", nil, err
	}
	const heading = "\n## "
	parts := strings.Split(string(text), heading)
	for _, part := range parts[1:] {
		sections = append(sections, heading+part)
	}
	return parts[0], sections, nil
}

// writeSection replaces a section of a document, or appends it.
func writeSection(file, heading, text string) error {
	beginning, sections, err := readDocument(file)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(sections, func(s string) bool { return strings.HasPrefix(s, heading) })
	if i < 0 {
		i, sections = len(sections), append(sections, "")
	}
	sections[i] = heading + text
	return writeFile(file, beginning+strings.Join(sections, ""))
}
