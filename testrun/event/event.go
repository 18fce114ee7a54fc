// Package event defines the typed events that machines and scripts emit while
// a test runs, and the [Bus] that carries them to report sinks. It is the only
// way anything is reported: no package of testrun prints.
package event

import "time"

// Level is the severity of a [Log] event. Levels gate only Log events; nested
// blocks and serial lines are never gated (as in nixpkgs' driver).
type Level int

// The levels, in rising order. The default of a run is Info.
const (
	Debug Level = iota
	Info
	Warning
	Error
)

// Event is one of the types of this package.
type Event interface{ isEvent() }

// Log is one message of the driver, a machine or the script.
type Log struct {
	Level   Level
	Machine string // empty for the driver itself
	Text    string
	// Always is set for messages that no level hides (a script's log.log and
	// machine.log calls, the driver's own progress).
	Always bool
}

// BlockOpen begins a nested block ("must succeed: …", "subtest: …").
type BlockOpen struct {
	ID      uint64 // unique in a run, never 0
	Machine string
	Text    string
	Attrs   map[string]string // extra attributes of the XML log; may be nil
	Subtest string            // name of the subtest when the block is one
}

// BlockClose ends the block with the same ID.
type BlockClose struct {
	ID       uint64
	Machine  string
	Text     string // the text the block was opened with
	Subtest  string
	Duration time.Duration
	Failure  string // why the body ended early; empty when it succeeded
}

// Serial is one line of a machine's serial console, without line ending, or
// of what commands in its shell wrote to standard error.
type Serial struct {
	Machine string
	Text    string
	Stderr  bool
}

// Output is one line of standard output of a command that is still running,
// emitted only when the log level is Debug.
type Output struct {
	Machine string
	Text    string
}

// Command is one finished command in a guest's shell.
type Command struct {
	Machine  string
	Text     string
	Duration time.Duration
	Status   int    // exit status; -1 when it was given up
	Stdout   string // cut to its last 4 KiB
	Stderr   string // likewise
	Failure  string // why it was given up; empty when it ended
}

// MachineStarted says that a machine's QEMU runs the guest.
type MachineStarted struct {
	Machine     string
	PID         int
	CommandLine []string // QEMU's, exactly
}

// MachineConnected says that a guest's root shell has answered.
type MachineConnected struct {
	Machine  string
	Duration time.Duration // from the wait's begin
}

// MachineStopped says that a machine has ended.
type MachineStopped struct {
	Machine  string
	Reason   string
	Expected bool // it was asked to, or powered itself off
}

// Artifact is a file that the test leaves for its user.
type Artifact struct {
	Machine string // may be empty
	Kind    string // "screenshot", "console", "journal", "command line", "capture", "report", "file"
	Path    string // absolute
}

// Traffic counts what one port of a VLAN has seen, at the end of a run.
type Traffic struct {
	VLAN                  int
	Machine               string // empty when the port's owner is not a machine
	FromFrames, FromBytes uint64 // sent by the machine
	ToFrames, ToBytes     uint64 // delivered to it
	Dropped               uint64 // lost on the way to it: faults and full queues
}

// TestFailure is the account of a failed script, one line each, as it is shown
// behind "!!! ".
type TestFailure struct {
	Lines   []string
	Script  string // path of the script; may be empty
	Line    int    // of the script, from 1; 0 when unknown
	Subtest string // that failed while others go on (--keep-going); else empty
}

// TestFinished is the last event of a run.
type TestFinished struct {
	Duration time.Duration
	Failure  string // empty when the test passed
}

func (Log) isEvent()              {}
func (BlockOpen) isEvent()        {}
func (BlockClose) isEvent()       {}
func (Serial) isEvent()           {}
func (Output) isEvent()           {}
func (Command) isEvent()          {}
func (MachineStarted) isEvent()   {}
func (MachineConnected) isEvent() {}
func (MachineStopped) isEvent()   {}
func (Artifact) isEvent()         {}
func (Traffic) isEvent()          {}
func (TestFailure) isEvent()      {}
func (TestFinished) isEvent()     {}
