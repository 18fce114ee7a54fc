package python

import (
	"fmt"
	"strings"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/script"
)

// reporter returns what handles the calls by which the script reports, and nil
// for those that go to the Caller.
func (c *conversation) reporter(r script.Request) func(script.Request) (any, error) {
	if r.Machine != "" {
		return nil
	}
	switch r.Method {
	case "log":
		return c.log
	case "block_open":
		return c.openBlock
	case "block_close":
		return c.closeBlock
	case "log_serial":
		return c.logSerial
	case "subtest_failed":
		return c.subtestFailed
	}
	return nil
}

// log emits a message; with an empty level it is one that no level hides.
func (c *conversation) log(r script.Request) (any, error) {
	var args struct{ Level, Message, Machine string }
	if err := r.Decode(&args); err != nil {
		return nil, err
	}
	var level event.Level
	switch args.Level {
	case "":
		c.session.Bus.Say(args.Machine, args.Message)
		return nil, nil
	case "test_error":
		c.session.Bus.Emit(event.TestFailure{Lines: strings.Split(args.Message, "\n")})
		return nil, nil
	case "debug":
		level = event.Debug
	case "info":
		level = event.Info
	case "warning":
		level = event.Warning
	case "error":
		level = event.Error
	default:
		return nil, fmt.Errorf("log: unknown level %q", args.Level)
	}
	c.session.Bus.Log(level, args.Machine, args.Message)
	return nil, nil
}

// logSerial emits lines as if they came from a machine's console.
func (c *conversation) logSerial(r script.Request) (any, error) {
	var args struct{ Message, Machine string }
	if err := r.Decode(&args); err != nil {
		return nil, err
	}
	for line := range strings.SplitSeq(args.Message, "\n") {
		c.session.Bus.Emit(event.Serial{Machine: args.Machine, Text: line})
	}
	return nil, nil
}

// subtestFailed reports a subtest after which the script goes on.
func (c *conversation) subtestFailed(r script.Request) (any, error) {
	var args struct {
		Subtest string
		Lines   []string
		Line    int
	}
	if err := r.Decode(&args); err != nil {
		return nil, err
	}
	c.session.Bus.Emit(event.TestFailure{
		Lines: args.Lines, Script: c.session.ScriptPath, Line: args.Line, Subtest: args.Subtest,
	})
	return nil, nil
}

func (c *conversation) openBlock(r script.Request) (any, error) {
	var args struct {
		Machine, Text, Subtest string
		Attrs                  map[string]string
	}
	if err := r.Decode(&args); err != nil {
		return nil, err
	}
	block := c.session.Bus.Open(event.BlockOpen{
		Machine: args.Machine, Text: args.Text, Attrs: args.Attrs, Subtest: args.Subtest,
	})
	c.blocks[block.ID()] = block
	return map[string]uint64{"id": block.ID()}, nil
}

func (c *conversation) closeBlock(r script.Request) (any, error) {
	var args struct {
		ID      uint64
		Failure string
	}
	if err := r.Decode(&args); err != nil {
		return nil, err
	}
	block, ok := c.blocks[args.ID]
	if !ok {
		return nil, fmt.Errorf("block_close: no open block %d", args.ID)
	}
	delete(c.blocks, args.ID)
	block.Close(args.Failure)
	return nil, nil
}
