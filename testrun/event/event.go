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

// Serial is one line of a machine's serial console, without line ending.
type Serial struct {
	Machine string
	Text    string
}

// TestFailure is the account of a failed script, one line each, as it is shown
// behind "!!! ".
type TestFailure struct {
	Lines []string
}

// TestFinished is the last event of a run.
type TestFinished struct {
	Duration time.Duration
	Failure  string // empty when the test passed
}

func (Log) isEvent()          {}
func (BlockOpen) isEvent()    {}
func (BlockClose) isEvent()   {}
func (Serial) isEvent()       {}
func (TestFailure) isEvent()  {}
func (TestFinished) isEvent() {}
