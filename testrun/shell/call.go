package shell

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"time"

	"vm-prebuild/testrun/machine"
)

// call is one command and how to run it.
type call struct {
	command    string
	limit      time.Duration // of an attempt; 0 for none
	until      string        // "" runs it once
	duration   time.Duration // how long to repeat it
	input      io.Reader     // nil for none
	inputBytes int64
}

const (
	untilSuccess = "0"
	untilFailure = "1"
)

// own matches what a command must be a process of its own for: elsewhere bash
// runs it as a subshell, whose $$ is the guest's shell itself.
var own = regexp.MustCompile(`\$\$|\$\{?[$0]|PPID|BASH|SHLVL|\$\{?_\b`)

// ownGroup matches commands that send signals to their own process group, which
// is that of the guest's shell unless coreutils' timeout makes another.
var ownGroup = regexp.MustCompile(`\bkill\b[^;|&\n]*\s0\b`)

// maxArgument is a little less than what the kernel takes as one argument of a
// program (MAX_ARG_STRLEN).
const maxArgument = 120 << 10

// shellCode is what the guest's shell evaluates for a command.
func shellCode(command string) string {
	program := ""
	switch {
	case len(command) > maxArgument:
	case ownGroup.MatchString(command):
		program = "exec timeout 0 bash -c "
	case own.MatchString(command):
		program = "exec bash -c "
	}
	if program == "" {
		return command
	}
	return program + machine.Quote("set -euo pipefail; "+command)
}

// maxInline is how long a command may be that goes through the console, from
// which bash takes one byte at a time.
const maxInline = 4 << 10

// command has the guest run a call.
func (c *Conn) command(ctx context.Context, k call, number uint64) error {
	command := shellCode(k.command)
	if len(command) <= maxInline || !c.ready.port || k.input != nil {
		return c.send(ctx, k.line(number, machine.Quote(command)))
	}
	err := c.send(ctx, fmt.Sprintf("_vmt_l=$(head -c %d <$_vmt_port)\n%s", len(command), k.line(number, `"$_vmt_l"`)))
	if err != nil {
		return err
	}
	if _, err := writeAll(ctx, c.data, []byte(command)); err != nil {
		c.conn.Close() // the guest takes anything for the rest of the command
		return fmt.Errorf("%w: sending a command of %d bytes: %w", ErrClosed, len(command), err)
	}
	return nil
}

// line is what the guest's shell executes for a call; command is one word.
func (k call) line(number uint64, command string) string {
	word := func(set bool, s string) string {
		if !set {
			return "-"
		}
		return s
	}
	return fmt.Sprintf("_vmt %d %s %s %d %s %s\n", number,
		word(k.limit > 0, strconv.FormatFloat(k.limit.Seconds(), 'f', 3, 64)),
		word(k.until != "", k.until),
		k.duration.Milliseconds()/10,
		word(k.input != nil, strconv.FormatInt(k.inputBytes, 10)),
		command)
}
