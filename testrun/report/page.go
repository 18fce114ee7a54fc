package report

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"vm-prebuild/testrun/event"
)

// Page collects what a test does and shows it as one HTML page that needs
// nothing else: a timeline, the failing line of the script, subtests, the log
// as a tree, consoles, commands, screenshots, traffic. What it keeps is
// bounded, however much a guest writes: of long logs it has both ends, of
// consoles the end. It is safe for concurrent use.
type Page struct {
	title string

	mu      sync.Mutex
	reports []*replacement // to be written by Close

	begin, last time.Time
	seq         int // of the last entry

	log      window[*entry] // messages and blocks
	commands window[*entry]
	open     []*entry // blocks that have not ended, the innermost last
	bars     longest  // blocks that have
	machines []*pageMachine
	subtests []*entry
	failures []pageFailure
	files    []pageFile
	traffic  []event.Traffic
	end      *event.TestFinished
}

// The bounds of a page. Texts are in bytes, the others in items.
const (
	maxLogHead      = 2000
	maxLogTail      = 8000
	maxCommandsHead = 200
	maxCommandsTail = 800
	maxConsole      = 3000 // lines of each machine
	maxMachines     = 256
	maxRuns         = 100 // starts of one machine
	maxBars         = 1500
	maxSubtests     = 1000
	maxFailures     = 100
	maxFailureLines = 200
	maxFiles        = 1000
	maxTraffic      = 4096

	maxName       = 64      // of a machine
	maxText       = 2 << 10 // of a message
	maxConsoleRow = 500     // of a line of a console
	maxOutput     = 4 << 10 // of a command
)

// entry is a line or a block of the log.
type entry struct {
	seq     int           // its place in the log
	at      time.Duration // since the test began
	class   entryClass
	level   event.Level
	machine string
	text    string
	parent  *entry // the block it belongs to; nil at the top

	// Of blocks and commands.
	id       uint64
	subtest  string
	depth    int // how many blocks of the same machine it is in
	duration time.Duration
	failure  string
	command  *event.Command
}

// entryClass is also the name of the class in the style sheet.
type entryClass string

const (
	classMessage entryClass = "message"
	classBlock   entryClass = "block"
	classSerial  entryClass = "serial"
	classStderr  entryClass = "stderr"
	classOutput  entryClass = "output"
	classCommand entryClass = "command"
	classFailure entryClass = "failure"
	classGap     entryClass = "gap"   // something was left out here
	classGroup   entryClass = "group" // lines of consoles that follow each other
)

// pageMachine is a machine as far as events have told of it.
type pageMachine struct {
	name    string
	console window[*entry]
	runs    []machineRun
}

// machineRun lasts from a machine's start to its end. Times count from the
// test's begin; 0 means that it has not come so far.
type machineRun struct {
	started, connected, stopped time.Duration
	reason                      string
	expected                    bool
	pid                         int
	commandLine                 []string
}

type pageFailure struct {
	at      time.Duration
	lines   []string
	subtest string
	script  string
	source  []sourceLine // around the line that failed
}

// pageFile is an event.Artifact.
type pageFile struct {
	event.Artifact
	at time.Duration
}

// NewPage returns a sink that collects a page, which is written to the files of
// WriteAtClose. title is the page's heading.
func NewPage(title string) *Page {
	return &Page{
		title:    title,
		log:      window[*entry]{first: maxLogHead, last: maxLogTail},
		commands: window[*entry]{first: maxCommandsHead, last: maxCommandsTail},
	}
}

// WriteAtClose has Close write the page to file, the directory of which must
// exist. It can be called at any time, for several files.
func (p *Page) WriteAtClose(file string) error {
	r, err := openReplacement("HTML report", file)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reports = append(p.reports, r)
	return nil
}

// CommandLine is that of the machine's QEMU, or of its last one; nil when the
// machine was not started.
func (p *Page) CommandLine(machine string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if run := p.lastRun(machine); run != nil {
		return run.commandLine
	}
	return nil
}

// Close implements event.Sink. A test that never finished leaves no page.
func (p *Page) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, r := range p.reports {
		if p.end == nil {
			r.discard()
		} else {
			errs = append(errs, p.write(r))
		}
	}
	return errors.Join(errs...)
}

// Handle implements event.Sink.
func (p *Page) Handle(r event.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begin.IsZero() {
		p.begin = r.Time
	}
	p.last = r.Time
	switch e := r.Event.(type) {
	case event.Log:
		level := e.Level
		if e.Always {
			level = max(level, event.Info)
		}
		p.log.add(p.entry(classMessage, e.Machine, e.Text, level))
	case event.BlockOpen:
		p.openBlock(e)
	case event.BlockClose:
		p.closeBlock(e)
	case event.Output:
		p.log.add(p.entry(classOutput, e.Machine, e.Text, event.Debug))
	case event.Serial:
		p.serial(e)
	case event.Command:
		p.command(e)
	case event.MachineStarted, event.MachineConnected, event.MachineStopped:
		p.lifeCycle(e)
	case event.Artifact:
		p.files = slices.DeleteFunc(p.files, func(f pageFile) bool { return f.Path == e.Path })
		if len(p.files) < maxFiles {
			e.Machine = clean(e.Machine, maxName)
			p.files = append(p.files, pageFile{Artifact: e, at: p.now()})
		}
	case event.Traffic:
		if len(p.traffic) < maxTraffic {
			e.Machine = clean(e.Machine, maxName)
			p.traffic = append(p.traffic, e)
		}
	case event.TestFailure:
		p.failure(e)
	case event.TestFinished:
		p.end = &e
	}
}

// now is the time of the event that is being handled.
func (p *Page) now() time.Duration { return p.last.Sub(p.begin) }

func (p *Page) entry(class entryClass, machine, text string, level event.Level) *entry {
	p.seq++
	return &entry{
		seq:     p.seq,
		at:      p.now(),
		class:   class,
		level:   level,
		machine: clean(machine, maxName),
		text:    clean(text, maxText),
		parent:  p.innermost(machine),
	}
}

// innermost is the block that something of a machine belongs to. What happens
// on two machines at the same time does not mix: a machine's own block comes
// before that of the script.
func (p *Page) innermost(machine string) *entry {
	machine = clean(machine, maxName)
	var script *entry
	for _, e := range slices.Backward(p.open) {
		if e.machine == machine {
			return e
		}
		if script == nil && e.machine == "" {
			script = e
		}
	}
	return script
}

func (p *Page) openBlock(e event.BlockOpen) {
	block := p.entry(classBlock, e.Machine, e.Text, event.Info)
	block.id = e.ID
	block.subtest = clean(e.Subtest, maxText)
	for _, o := range p.open {
		if o.machine == block.machine {
			block.depth++
		}
	}
	p.open = append(p.open, block)
	p.log.add(block)
	if e.Subtest != "" && len(p.subtests) < maxSubtests {
		p.subtests = append(p.subtests, block)
	}
}

func (p *Page) closeBlock(e event.BlockClose) {
	i := slices.IndexFunc(p.open, func(o *entry) bool { return o.id == e.ID })
	if i < 0 {
		return
	}
	block := p.open[i]
	p.open = slices.Delete(p.open, i, i+1)
	block.duration = e.Duration
	block.failure = clean(e.Failure, maxText)
	p.bars.add(block, maxBars)
}

func (p *Page) serial(e event.Serial) {
	m := p.machine(e.Machine)
	if m == nil {
		return
	}
	class := classSerial
	if e.Stderr {
		class = classStderr
	}
	line := p.entry(class, e.Machine, cut(e.Text, maxConsoleRow), event.Info)
	m.console.add(line)
}

func (p *Page) command(e event.Command) {
	c := p.entry(classCommand, e.Machine, e.Text, event.Info)
	c.duration = e.Duration
	c.failure = clean(e.Failure, maxText)
	e.Stdout = clean(e.Stdout, maxOutput)
	e.Stderr = clean(e.Stderr, maxOutput)
	e.Text, e.Failure = c.text, c.failure
	c.command = &e
	p.commands.add(c)
}

func (p *Page) failure(e event.TestFailure) {
	line := p.entry(classFailure, "", "", event.Error)
	f := pageFailure{at: line.at, subtest: clean(e.Subtest, maxText), script: clean(e.Script, maxText)}
	for _, l := range e.Lines[:min(len(e.Lines), maxFailureLines)] {
		f.lines = append(f.lines, clean(l, maxText))
	}
	line.text = message(f.lines)
	p.log.add(line)
	// What nixpkgs' driver says of a subtest is said again by the script's own
	// account, in which the line is known.
	repeated := strings.HasPrefix(line.text, `Test "`) && strings.Contains(line.text, `" failed with error: `)
	if len(p.failures) < maxFailures && !repeated {
		f.source = source(e.Script, e.Line)
		p.failures = append(p.failures, f)
	}
}

// message is the line of an account that says what was wrong: the first one
// that is neither the traceback nor the console of a machine.
func message(account []string) string {
	for _, l := range account {
		if l != "" && l[0] != ' ' && !strings.HasPrefix(l, "Traceback ") {
			return l
		}
	}
	return strings.Join(account, " ")
}

func (p *Page) lifeCycle(e event.Event) {
	switch e := e.(type) {
	case event.MachineStarted:
		if m := p.machine(e.Machine); m != nil && len(m.runs) < maxRuns {
			m.runs = append(m.runs, machineRun{started: p.now(), pid: e.PID, commandLine: e.CommandLine})
		}
	case event.MachineConnected:
		if run := p.lastRun(e.Machine); run != nil {
			run.connected = p.now()
		}
	case event.MachineStopped:
		if run := p.lastRun(e.Machine); run != nil {
			run.stopped, run.reason, run.expected = p.now(), clean(e.Reason, maxText), e.Expected
		}
	}
}

// machine is nil when there are too many.
func (p *Page) machine(name string) *pageMachine {
	name = clean(name, maxName)
	for _, m := range p.machines {
		if m.name == name {
			return m
		}
	}
	if len(p.machines) == maxMachines {
		return nil
	}
	m := &pageMachine{name: name, console: window[*entry]{last: maxConsole}}
	p.machines = append(p.machines, m)
	return m
}

func (p *Page) lastRun(machine string) *machineRun {
	machine = clean(machine, maxName)
	for _, m := range p.machines {
		if m.name == machine && len(m.runs) > 0 {
			return &m.runs[len(m.runs)-1]
		}
	}
	return nil
}
