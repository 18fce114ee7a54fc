package machine_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
)

// fake is a machine without capabilities whose guest is this host: commands
// run in a real bash.
type fake struct {
	dirs    machine.Dirs
	path    string // in front of PATH, for a systemctl that plays along
	started int
	stuck   error
	timeout time.Duration // of the last command
	sent    []string      // commands that nobody waits for
}

func (f *fake) Name() string       { return "fake" }
func (f *fake) Dirs() machine.Dirs { return f.dirs }
func (f *fake) Start(context.Context, machine.StartOptions) error {
	f.started++
	return nil
}
func (f *fake) Shell(context.Context) (machine.Shell, error) { return f, nil }
func (f *fake) Running() bool                                { return f.started > 0 }
func (f *fake) Wait(context.Context) error                   { return nil }
func (f *fake) Console() []string                            { return []string{"last words"} }
func (f *fake) Release() error                               { return nil }

var errStuck = errors.New("no answer")

func (f *fake) Run(ctx context.Context, command string, timeout time.Duration) (machine.Result, error) {
	f.timeout = timeout
	if f.stuck != nil {
		return machine.Result{}, f.stuck
	}
	args := []string{"bash", "-c", "set -euo pipefail; " + command}
	if timeout > 0 {
		args = append([]string{"timeout", timeoutArg(timeout)}, args...)
	}
	cmd := f.command(ctx, args)
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return machine.Result{}, context.Cause(ctx)
	case errors.As(err, &exit):
		status := exit.ExitCode()
		if status < 0 {
			status = 128 + int(exit.Sys().(syscall.WaitStatus).Signal())
		}
		return machine.Result{Status: status, Stdout: out}, nil
	}
	return machine.Result{Stdout: out}, err
}

// command is args with what is the guest's about them.
func (f *fake) command(ctx context.Context, args []string) *exec.Cmd {
	last := &args[len(args)-1]
	*last = strings.ReplaceAll(*last, "/tmp/shared/", f.dirs.Shared+"/")
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+f.path+":"+os.Getenv("PATH"))
	cmd.WaitDelay = time.Second
	return cmd
}

// Feed and Receive make the fake's shell a machine.Streamer.
func (f *fake) Feed(ctx context.Context, command string, in io.Reader, n int64) (machine.Result, error) {
	input, err := io.ReadAll(io.LimitReader(in, n))
	if err != nil {
		return machine.Result{}, err
	}
	cmd := f.command(ctx, []string{"bash", "-c", "set -euo pipefail; " + command})
	cmd.Stdin = bytes.NewReader(input)
	return result(cmd.Output())
}

func (f *fake) Receive(ctx context.Context, command string, w io.Writer) (machine.Result, error) {
	cmd := f.command(ctx, []string{"bash", "-c", "set -euo pipefail; " + command})
	cmd.Stdout = w
	return result(nil, cmd.Run())
}

func result(out []byte, err error) (machine.Result, error) {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return machine.Result{Status: exit.ExitCode(), Stdout: out, Stderr: exit.Stderr}, nil
	}
	return machine.Result{Stdout: out}, err
}

func timeoutArg(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

func (f *fake) Send(ctx context.Context, command string, _ time.Duration) error {
	f.sent = append(f.sent, command)
	return f.command(context.WithoutCancel(ctx), []string{"bash", "-c", command}).Start()
}

// recorder keeps the texts of what is reported.
type recorder struct{ lines []string }

func (r *recorder) Handle(rec event.Record) {
	switch e := rec.Event.(type) {
	case event.Log:
		r.lines = append(r.lines, e.Text)
	case event.BlockOpen:
		r.lines = append(r.lines, e.Text)
	}
}
func (r *recorder) Close() error { return nil }

func newGuest(t *testing.T) (*machine.Guest, *fake, *recorder) {
	t.Helper()
	f := &fake{path: t.TempDir(), dirs: machine.Dirs{State: t.TempDir(), Shared: t.TempDir(), Out: t.TempDir()}}
	r := &recorder{}
	return &machine.Guest{Machine: f, Bus: event.NewBus(r)}, f, r
}

func wantAssertion(t *testing.T, err error, text string) {
	t.Helper()
	var a *machine.AssertionError
	if !errors.As(err, &a) || !strings.Contains(a.Error(), text) {
		t.Errorf("error %v, want an assertion with %q", err, text)
	}
}

func TestSucceedAndFail(t *testing.T) {
	g, f, r := newGuest(t)
	out, err := g.Succeed(t.Context(), []string{"echo one", "printf two"}, 0)
	if err != nil || out != "one\ntwo" {
		t.Errorf("%q %v", out, err)
	}
	if f.started == 0 {
		t.Error("the machine was not started")
	}
	_, err = g.Succeed(t.Context(), []string{"echo why; exit 3", "touch never"}, 0)
	wantAssertion(t, err, "command `echo why; exit 3` failed (exit code 3)")
	if !strings.Contains(strings.Join(r.lines, "\n"), "output: why\n") {
		t.Errorf("the failed command's output is not in the log: %q", r.lines)
	}
	out, err = g.Fail(t.Context(), []string{"echo no; false"}, 0)
	if err != nil || out != "no\n" {
		t.Errorf("%q %v", out, err)
	}
	_, err = g.Fail(t.Context(), []string{"true"}, 0)
	wantAssertion(t, err, "command `true` unexpectedly succeeded")
	_, err = g.Succeed(t.Context(), []string{"sleep 10"}, 100*time.Millisecond)
	wantAssertion(t, err, "failed (exit code 124)")
}

func TestErrorsOfTheShellNameTheMachine(t *testing.T) {
	g, f, _ := newGuest(t)
	f.stuck = errStuck
	_, err := g.Succeed(t.Context(), []string{"true"}, 0)
	var e *machine.Error
	if !errors.As(err, &e) || !errors.Is(err, errStuck) {
		t.Fatalf("error %v", err)
	}
	for _, part := range []string{`machine "fake"`, "no answer", "last words"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
}

// late is the shell's error for a guest that is silent beyond a time-out.
type late struct{ error }

func (late) Timeout() bool { return true }

func TestWaitOnASilentGuest(t *testing.T) {
	g, f, _ := newGuest(t)
	f.stuck = late{errStuck}
	wantAssertion(t, g.WaitForFile(t.Context(), "/", time.Second), "action timed out after ")
}

func TestMissingCapabilities(t *testing.T) {
	g, f, _ := newGuest(t)
	f.started = 1
	for what, err := range map[string]error{
		"take screenshots":      second(g.Screenshot(t.Context(), "", "x")),
		"crash":                 g.Crash(t.Context()),
		"reboot":                g.Reboot(t.Context()),
		"take monitor commands": second(g.MonitorCommand(t.Context(), "info")),
		"change its links":      g.SetLinks(t.Context(), false),
		"press keys":            g.SendKey(t.Context(), "a", 0, true),
		"type on a serial":      g.SendConsole(t.Context(), "a"),
		"show a console":        g.WaitForConsoleText(t.Context(), "a", 0),
		"speak QMP":             second(g.QMPSend(t.Context(), "stop", nil)),
		"forward ports":         g.ForwardPort(t.Context(), 8080, 80),
		"lose its shell":        g.Disconnect(),
	} {
		if err == nil || !strings.Contains(err.Error(), `machine "fake": cannot `+what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestWaits(t *testing.T) {
	g, _, _ := newGuest(t)
	file := filepath.Join(t.TempDir(), "awaited")
	time.AfterFunc(300*time.Millisecond, func() { _ = os.WriteFile(file, []byte("content\n\n"), 0o600) })
	begin := time.Now()
	if err := g.WaitForFile(t.Context(), file, 10*time.Second); err != nil {
		t.Error(err)
	}
	if late := time.Since(begin) - 300*time.Millisecond; late > 2*time.Second {
		t.Errorf("noticed %v late", late)
	}
	out, err := g.WaitUntilSucceeds(t.Context(), "cat "+file, 10*time.Second)
	if err != nil || out != "content\n\n" {
		t.Errorf("%q %v: the output must be exact", out, err)
	}
	out, err = g.WaitUntilFails(t.Context(), "echo gone; test ! -e "+file, 10*time.Second)
	if err != nil || out != "gone\n" {
		t.Errorf("%q %v", out, err)
	}
}

func TestWaitsEnd(t *testing.T) {
	g, f, _ := newGuest(t)
	for name, wait := range map[string]func(time.Duration) error{
		"file":     func(d time.Duration) error { return g.WaitForFile(t.Context(), "/nonexistent", d) },
		"succeeds": func(d time.Duration) error { return second(g.WaitUntilSucceeds(t.Context(), "false", d)) },
		"blocking": func(d time.Duration) error { return second(g.WaitUntilSucceeds(t.Context(), "sleep 60", d)) },
		"fails":    func(d time.Duration) error { return second(g.WaitUntilFails(t.Context(), "true", d)) },
	} {
		for _, d := range []time.Duration{0, 300 * time.Millisecond, 1500 * time.Millisecond} {
			begin := time.Now()
			err := wait(d)
			wantAssertion(t, err, "action timed out after ")
			wantAssertion(t, err, "(timeout="+machine.PythonSeconds(d)+")")
			if took := time.Since(begin); took > d+3*time.Second {
				t.Errorf("%s: %v took %v", name, d, took)
			}
		}
	}
	f.stuck = errStuck
	if err := g.WaitForFile(t.Context(), "/", time.Minute); !errors.Is(err, errStuck) {
		t.Errorf("stuck guest: %v", err)
	}
}

// systemctl is a program for the fake guest that reads the state of unit U
// from file U, pending jobs from file "jobs".
const systemctl = `#!/bin/sh
cd "$(dirname "$0")"
case "$*" in
*list-jobs*) cat jobs 2>/dev/null || echo "No jobs running." ;;
*"show bad"*|*"show \"bad\""*) exit 4 ;;
*--property=*) sed "s/^/ActiveState=/" "$3" ;;
*) printf 'Id=%s\nActiveState=%s\nOdd=a=b\n' "$3" "$(cat "$3")" ;;
esac
`

func TestUnits(t *testing.T) {
	g, f, _ := newGuest(t)
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		tmp := filepath.Join(f.path, "."+name)
		if err := os.WriteFile(tmp, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(f.path, name)); err != nil {
			t.Fatal(err)
		}
	}
	write("systemctl", systemctl, 0o755)
	write("up.service", "active\n", 0o644)
	write("broken.service", "failed\n", 0o644)
	write("off.service", "inactive\n", 0o644)
	write("slow.service", "activating\n", 0o644)
	ctx := t.Context()

	if err := g.WaitForUnit(ctx, "up.service", "", time.Minute); err != nil {
		t.Error(err)
	}
	wantAssertion(t, g.WaitForUnit(ctx, "broken.service", "", time.Minute), `unit "broken.service" reached state "failed"`)
	wantAssertion(t, g.WaitForUnit(ctx, "off.service", "", time.Minute), `unit "off.service" is inactive and there are no pending jobs`)
	wantAssertion(t, g.WaitForUnit(ctx, "slow.service", "", 200*time.Millisecond), "action timed out")
	time.AfterFunc(200*time.Millisecond, func() { write("slow.service", "active\n", 0o644) })
	if err := g.WaitForUnit(ctx, "slow.service", "", time.Minute); err != nil {
		t.Error(err)
	}
	// A pending job may yet start an inactive unit.
	write("jobs", "1 off.service start waiting\n", 0o644)
	wantAssertion(t, g.WaitForUnit(ctx, "off.service", "", 200*time.Millisecond), "action timed out")

	info, err := g.UnitInfo(ctx, "up.service", "")
	if f.timeout != machine.DefaultTimeout {
		t.Errorf("systemctl may take %v", f.timeout)
	}
	if err != nil || info["ActiveState"] != "active" || info["Odd"] != "a=b" {
		t.Errorf("%v %v", info, err)
	}
	state, err := g.UnitProperty(ctx, "off.service", "ActiveState", "")
	if err != nil || state != "inactive" {
		t.Errorf("%q %v", state, err)
	}
	_, err = g.UnitInfo(ctx, "bad", "")
	wantAssertion(t, err, `retrieving systemctl info for unit "bad" failed with exit code 4`)
	wantAssertion(t, g.WaitForUnit(ctx, "bad", "", time.Minute), `for unit "bad" failed with exit code 4`)
	wantAssertion(t, g.RequireUnitState(ctx, "off.service", "active"),
		"Expected unit 'off.service' to to be in state 'active' but it is in state 'inactive'")
}

func FuzzQuote(f *testing.F) {
	f.Add("it's")
	f.Add("'\"$`\\\n")
	f.Fuzz(func(t *testing.T, s string) {
		if strings.ContainsRune(s, 0) {
			return // an argument cannot hold NUL
		}
		out, err := exec.Command("sh", "-c", "printf %s "+machine.Quote(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q became %q (%v)", s, out, err)
		}
	})
}

// What a wait's last attempt came to is part of the error.
func TestWaitTellsOfItsLastAttempt(t *testing.T) {
	g, _, _ := newGuest(t)
	_, err := g.WaitUntilSucceeds(t.Context(), "exit 4", 100*time.Millisecond)
	wantAssertion(t, err, "\nthe last attempt of `exit 4` on fake ended with exit code 4")
	_, err = g.Succeed(t.Context(), []string{"sleep 60"}, 100*time.Millisecond)
	wantAssertion(t, err, "failed (exit code 124)\nit was given 0.1 seconds")
}
