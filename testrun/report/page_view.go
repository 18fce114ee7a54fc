package report

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	_ "embed" // the page's template, style sheet and script
	"encoding/base64"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"vm-prebuild/testrun/event"
)

var (
	//go:embed assets/page.html.tmpl
	pageTemplate string
	//go:embed assets/page.css
	pageStyle string
	//go:embed assets/page.js
	pageScript string
)

// view is what the template shows.
type view struct {
	Title    string
	Policy   string // Content-Security-Policy
	Style    template.CSS
	Script   template.JS
	Begin    string
	Duration time.Duration
	Failure  string

	Failures  []failureView
	Timeline  timeline
	Subtests  []blockView
	Pictures  []pictureView
	Log       []*blockView
	LogTotal  int
	Dropped   int // entries of the log that are not on the page
	Commands  []*entry
	Machines  []machineView
	Traffic   []trafficView
	Files     []fileView
	Passed    int // subtests
	Failed    int // subtests
	CommandsN int // all commands, also those that are not on the page
}

type failureView struct {
	ID      string
	At      time.Duration
	Lines   []string
	Subtest string
	Script  string
	Source  []sourceLine
}

type pictureView struct {
	ID, Machine, Name, Path, Link string
	At                            time.Duration
}

// image is a picture's content, or why it cannot be shown.
type image struct {
	Data    template.URL
	Problem string
}

// Load reads the picture when the template comes to it, so that one is held in
// memory at a time.
func (v pictureView) Load() image {
	data, err := picture(v.Path)
	if err != nil {
		return image{Problem: printable(fmt.Sprintf("%s cannot be shown: %v", v.Path, err))}
	}
	return image{Data: data}
}

type machineView struct {
	Name    string
	Color   int
	Runs    []runView
	Console []*entry
	Lines   int // of the console in all
	journal string
}

// Journal is the end of the guest's journal; "" when it was not collected.
func (v machineView) Journal() string {
	if v.journal == "" {
		return ""
	}
	data, _, err := readEnd(v.journal, maxJournal)
	if err != nil {
		return ""
	}
	return printable(string(data))
}

type runView struct {
	Started     time.Duration
	Boot        time.Duration // 0: its shell was not used
	Up          time.Duration
	PID         int
	Reason      string
	Expected    bool
	Stopped     bool
	CommandLine string
}

type trafficView struct {
	event.Traffic
}

type fileView struct {
	Kind, Machine, Path, Link string
}

func (p *Page) write(r *replacement) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"clock":   clock,
		"lasting": lasting,
		"bytes":   byteCount,
		"percent": func(x float64) string { return fmt.Sprintf("%.4g%%", x) },
		"color":   p.color,
		"line":    firstLine,
		"sub":     func(a, b int) int { return a - b },
	}).Parse(pageTemplate)
	if err != nil {
		r.discard()
		return fmt.Errorf("HTML report: %w", err)
	}
	v := p.view(r.name)
	return r.commit(func(out *bufio.Writer) error { return t.Execute(out, v) })
}

// view arranges what has been collected, of a test that has finished, for the
// page that will be file.
func (p *Page) view(file string) view {
	hash := sha256.Sum256([]byte(pageScript))
	v := view{
		Title: p.title,
		// Were a guest's text ever taken for markup, it could do nothing.
		Policy: "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-" +
			base64.StdEncoding.EncodeToString(hash[:]) + "'; base-uri 'none'; form-action 'none'",
		Style:     template.CSS(pageStyle),
		Script:    template.JS(pageScript),
		Begin:     p.begin.UTC().Format("2006-01-02 15:04:05 UTC"),
		Duration:  p.end.Duration,
		Failure:   clean(p.end.Failure, maxText),
		Dropped:   p.log.dropped() + p.commands.dropped(),
		LogTotal:  p.log.total,
		CommandsN: p.commands.total,
	}
	for i, f := range p.failures {
		v.Failures = append(v.Failures, failureView{ID: failureID(i), At: f.at, Lines: f.lines, Subtest: f.subtest, Script: f.script, Source: f.source})
	}
	slices.SortFunc(p.machines, func(a, b *pageMachine) int { return cmp.Compare(a.name, b.name) })
	head, tail := p.commands.ends()
	v.Commands = append(slices.Clone(head), tail...)
	shown := map[*entry]*blockView{}
	v.Log = p.tree(shown)
	v.Timeline = p.timeline(func(e *entry) string {
		if shown[e] == nil {
			return ""
		}
		return e.ID()
	})
	for _, s := range p.subtests {
		v.Subtests = append(v.Subtests, blockView{entry: s, open: slices.Contains(p.open, s)})
		if s.failure != "" {
			v.Failed++
		} else {
			v.Passed++
		}
	}
	for _, t := range p.traffic {
		v.Traffic = append(v.Traffic, trafficView{t})
	}
	p.viewMachines(&v)
	p.viewFiles(&v, file)
	return v
}

func (p *Page) viewMachines(v *view) {
	for i, m := range p.machines {
		view := machineView{Name: m.name, Color: i, Lines: m.console.total}
		_, view.Console = m.console.ends()
		for _, f := range p.files {
			if f.Machine == m.name && f.Kind == "journal" {
				view.journal = f.Path
			}
		}
		for _, r := range m.runs {
			end := p.now()
			if r.stopped > 0 {
				end = r.stopped
			}
			run := runView{Started: r.started, Up: end - r.started, PID: r.pid, Reason: r.reason, Expected: r.expected,
				Stopped: r.stopped > 0, CommandLine: printable(ShellCommand(r.commandLine))}
			if r.connected > 0 {
				run.Boot = r.connected - r.started
			}
			view.Runs = append(view.Runs, run)
		}
		v.Machines = append(v.Machines, view)
	}
}

func (p *Page) viewFiles(v *view, page string) {
	for i, f := range p.pictures() {
		name := f.Path[strings.LastIndexByte(f.Path, '/')+1:]
		v.Pictures = append(v.Pictures, pictureView{ID: pictureID(i), Machine: f.Machine, Name: printable(name), At: f.at, Path: f.Path, Link: link(page, f.Path)})
	}
	for _, f := range p.files {
		v.Files = append(v.Files, fileView{Kind: printable(f.Kind), Machine: f.Machine, Path: printable(f.Path), Link: link(page, f.Path)})
	}
}

// pictures are the screenshots that can be shown.
func (p *Page) pictures() []pageFile {
	var all []pageFile
	for _, f := range p.files {
		if f.Kind == "screenshot" {
			all = append(all, f)
		}
	}
	return all
}

func pictureID(i int) string { return fmt.Sprintf("screenshot-%d", i+1) }
func failureID(i int) string { return fmt.Sprintf("failure-%d", i+1) }

// color is the number of a machine's colour.
func (p *Page) color(machine string) int {
	for i, m := range p.machines {
		if m.name == machine {
			return i % 8
		}
	}
	return 8 // the script
}

// firstLine is an error without the console that it may carry.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func byteCount(n uint64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// ID is the id of the entry's element.
func (e *entry) ID() string {
	if e.class == classGap || e.class == classGroup {
		return fmt.Sprintf("%s%d", e.class, e.seq) // the number is another's, too
	}
	return fmt.Sprintf("e%d", e.seq)
}

// At is when the entry was made, from the test's begin; that of a command is
// when it had ended.
func (e *entry) At() time.Duration       { return e.at }
func (e *entry) Class() string           { return string(e.class) }
func (e *entry) Level() string           { return e.level.String() }
func (e *entry) Machine() string         { return e.machine }
func (e *entry) Text() string            { return e.text }
func (e *entry) Subtest() string         { return e.subtest }
func (e *entry) Duration() time.Duration { return e.duration }
func (e *entry) Failure() string         { return e.failure }
func (e *entry) Command() *event.Command { return e.command }
