package machine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"vm-prebuild/testrun/event"
)

// DefaultTimeout is how long execute and the waits of a script last unless the
// script says otherwise.
const DefaultTimeout = 15 * time.Minute

// Guest is a machine as a test script uses it. A method that needs the guest's
// shell starts the machine first if it does not run. Expectations that are not
// met give an *AssertionError; everything else that goes wrong gives an error
// that names the machine.
type Guest struct {
	Machine Machine
	Bus     *event.Bus
	Boot    StartOptions // how to start the machine when an operation needs it
	Starter Starter      // what starts it; nil for the machine itself

	// Snapshots saves the machine and puts it back; nil for what cannot be saved.
	Snapshots Snapshots

	// Attempt limits each attempt of a wait; 0 means that only the wait's own
	// time-out does.
	Attempt time.Duration

	// SSHCommand logs in to the machine from the host; "" where nothing does.
	SSHCommand string

	// Between is called between the polls of a wait, and its error ends the
	// wait; may be nil.
	Between func(context.Context) error

	// Reader reads the text of screens; may be nil.
	Reader TextReader
}

func (g *Guest) nested(text string, f func() error) error {
	return g.Bus.Nested(g.Machine.Name(), text, f)
}

// Shell boots the machine if need be and waits until its shell answers.
func (g *Guest) Shell(ctx context.Context) (Shell, error) {
	if err := g.Start(ctx, g.Boot); err != nil {
		return nil, err
	}
	return g.Machine.Shell(ctx)
}

// run executes one command; every other operation goes through it.
func (g *Guest) run(ctx context.Context, command string, timeout time.Duration) (Result, error) {
	sh, err := g.Shell(ctx)
	if err != nil {
		return Result{}, err
	}
	return g.runIn(ctx, sh, command, timeout)
}

// runIn runs one command and reports it.
func (g *Guest) runIn(ctx context.Context, sh Shell, command string, timeout time.Duration) (Result, error) {
	begin := time.Now()
	r, err := sh.Run(ctx, command, timeout)
	e := event.Command{
		Machine:  g.Machine.Name(),
		Text:     command,
		Duration: time.Since(begin),
		Status:   r.Status,
		Stdout:   reported(r.Stdout),
		Stderr:   reported(r.Stderr),
	}
	if err != nil {
		err = g.explain(ctx, err)
		e.Status, e.Failure = -1, err.Error()
	}
	g.Bus.Emit(e)
	return r, err
}

// maxReported is how much of a command's output is reported, in bytes.
const maxReported = 4 << 10

// reported is the end of a command's output, as an event has it.
func reported(output []byte) string {
	return Text(output[max(0, len(output)-maxReported):])
}

// ailment says what explains that commands fail or do not answer; "" if nothing
// does.
func (g *Guest) ailment() string {
	if p, ok := g.Machine.(Patient); ok {
		return p.Ailment()
	}
	return ""
}

// maxStderr is how many lines of standard error an error carries.
const maxStderr = 20

// failed is the error of a command that did not end as it should, with a note
// of what is known of it.
func (g *Guest) failed(r Result, format string, args ...any) error {
	return &AssertionError{Message: fmt.Sprintf(format, args...), Note: g.note(r)}
}

// note adds what the standard error of a command and QEMU say to known lines.
func (g *Guest) note(r Result, lines ...string) string {
	if stderr := strings.TrimSpace(Text(r.Stderr)); stderr != "" {
		lines = append(lines, "standard error:")
		said := strings.Split(stderr, "\n")
		for _, l := range said[max(0, len(said)-maxStderr):] {
			lines = append(lines, "  "+l)
		}
	}
	if ailment := g.ailment(); ailment != "" {
		lines = append(lines, ailment)
	}
	return strings.Join(lines, "\n")
}

// explain makes an error of the shell one of the machine, with its console.
// The end of ctx is not the machine's doing.
func (g *Guest) explain(ctx context.Context, err error) error {
	var known *Error
	if errors.As(err, &known) || ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return err
	}
	return &Error{Machine: g.Machine.Name(), Err: err, Console: Tail(g.Machine.Console())}
}

// Execute runs a command and returns its exit status and output. With wait
// unset it does not wait for the command; the results are then empty.
func (g *Guest) Execute(ctx context.Context, command string, timeout time.Duration, wait bool) (Result, error) {
	if wait {
		return g.run(ctx, command, timeout)
	}
	sh, err := g.Shell(ctx)
	if err != nil {
		return Result{}, err
	}
	if err := sh.Send(ctx, command, timeout); err != nil {
		return Result{}, g.explain(ctx, err)
	}
	return Result{}, nil
}

// Succeed runs the commands one after the other, each of which must exit with
// status 0, and returns their outputs one behind the other. A zero timeout
// means that only ctx limits a command.
func (g *Guest) Succeed(ctx context.Context, commands []string, timeout time.Duration) (string, error) {
	var all strings.Builder
	for _, command := range commands {
		err := g.nested("must succeed: "+command, func() error {
			r, err := g.run(ctx, command, timeout)
			if err != nil {
				return err
			}
			all.Write(r.Stdout)
			if r.Status != 0 {
				g.Bus.Say(g.Machine.Name(), "output: "+Text(r.Stdout))
				var limit []string
				if r.Status == statusTimeout && timeout > 0 {
					limit = append(limit, fmt.Sprintf("it was given %s seconds", PythonSeconds(timeout)))
				}
				return &AssertionError{
					Message: fmt.Sprintf("command `%s` failed (exit code %d)", command, r.Status),
					Note:    g.note(r, limit...),
				}
			}
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	return Text([]byte(all.String())), nil
}

// Fail is Succeed for commands that must exit with another status than 0.
func (g *Guest) Fail(ctx context.Context, commands []string, timeout time.Duration) (string, error) {
	var all strings.Builder
	for _, command := range commands {
		err := g.nested("must fail: "+command, func() error {
			r, err := g.run(ctx, command, timeout)
			if err != nil {
				return err
			}
			all.Write(r.Stdout)
			if r.Status == 0 {
				return assertionf("command `%s` unexpectedly succeeded", command)
			}
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	return Text([]byte(all.String())), nil
}

// Shutdown powers the machine off and waits until it has ended.
func (g *Guest) Shutdown(ctx context.Context) error {
	if !g.Machine.Running() {
		return g.Machine.Wait(ctx)
	}
	return g.nested("waiting for the VM to power off", func() error {
		sh, err := g.Machine.Shell(ctx)
		if err != nil {
			return err
		}
		if err := sh.Send(ctx, "poweroff", 0); err != nil {
			return g.explain(ctx, err)
		}
		return g.Machine.Wait(ctx)
	})
}

// WaitForShutdown waits until the machine has ended by itself.
func (g *Guest) WaitForShutdown(ctx context.Context) error {
	if !g.Machine.Running() {
		return g.Machine.Wait(ctx)
	}
	return g.nested("waiting for the VM to power off", func() error {
		return g.Machine.Wait(ctx)
	})
}

// Crash ends the machine as if its power had failed.
func (g *Guest) Crash(ctx context.Context) error {
	if !g.Machine.Running() {
		return g.Machine.Wait(ctx)
	}
	c, err := capability[Crasher](g.Machine, "crash")
	if err != nil {
		return err
	}
	g.Bus.Say(g.Machine.Name(), "forced crash")
	return c.Crash(ctx)
}

// Reboot presses ctrl-alt-delete. The machine must have been started with
// AllowReboot, else it ends instead.
func (g *Guest) Reboot(ctx context.Context) error {
	r, err := capability[Rebooter](g.Machine, "reboot")
	if err != nil {
		return err
	}
	return r.Reboot(ctx)
}

// MonitorCommand hands a line to QEMU's human monitor.
func (g *Guest) MonitorCommand(ctx context.Context, line string) (answer string, err error) {
	m, err := capability[Monitor](g.Machine, "take monitor commands")
	if err != nil {
		return "", err
	}
	err = g.nested("sending monitor command: "+line, func() error {
		answer, err = m.MonitorCommand(ctx, line)
		return err
	})
	return answer, err
}

// SetLinks cuts the machine from its VLANs (up unset) or joins it again.
func (g *Guest) SetLinks(ctx context.Context, up bool) error {
	l, err := capability[Linker](g.Machine, "change its links")
	if err != nil {
		return err
	}
	return l.SetLinks(ctx, up)
}

// Up reports whether the machine runs and its shell has answered.
func (g *Guest) Up() bool {
	return g.Machine.Running() && g.Connected()
}

// Connected reports whether the guest's shell has answered since it booted.
func (g *Guest) Connected() bool {
	c, ok := g.Machine.(Connector)
	return ok && c.Connected()
}

// Disconnect has the next command wait for the shell's greeting again.
func (g *Guest) Disconnect() error {
	c, err := capability[Connector](g.Machine, "lose its shell")
	if err != nil {
		return err
	}
	c.Disconnect()
	return nil
}
