package testrun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/script"
	"vm-prebuild/testrun/script/python"
	"vm-prebuild/testrun/script/starlark"
)

// Options say how to run a test and where its reports go.
type Options struct {
	Interactive bool        // offer a prompt instead of running the script
	Log         io.Writer   // the terminal's log; nil for none
	LogLevel    event.Level // of messages in Log
	Colours     bool        // in Log
	HideSerial  bool        // Log has no consoles until the script calls serial_stdout_on()

	// Reports beside the log; none where empty. Relative names are below OutDir,
	// but for XMLLog, which is relative to the working directory.
	XMLLog    string // file in the format of nixpkgs' driver: $LOGFILE
	JUnit     string // file
	JSONL     string // file with an event per line
	HTML      string // file with one page for people
	SerialDir string // directory for a file per machine with its console
}

// RunError says how a test ended that did not pass.
type RunError struct {
	Err  error
	code int
}

func (r *RunError) Error() string { return r.Err.Error() }
func (r *RunError) Unwrap() error { return r.Err }

// ExitCode is 1 when the test failed, 2 when its script could not be compiled,
// 3 when a machine or the interpreter gave out, 124 at the global time-out,
// and whatever the script gave to sys.exit.
func (r *RunError) ExitCode() int { return r.code }

// Run runs one test. The error is nil when the test passed, a *[ConfigError]
// when it could not begin as described, and a *[RunError] when it did not pass.
// When ctx ends, the test is given up and everything cleaned.
func Run(ctx context.Context, cfg Config, o Options) (err error) {
	if err := cfg.check(); err != nil {
		return &ConfigError{Err: err}
	}
	if err := cfg.checkOutDir(); err != nil {
		return err
	}
	if !o.Interactive {
		if err := cfg.checkScript(); err != nil {
			return err
		}
	}
	t, err := open(ctx, cfg, o)
	if err != nil {
		return err
	}
	bus := t.d.bus
	defer func() { err = errors.Join(err, bus.Close()) }()
	err = t.d.run(ctx, o.Interactive)
	// Someone who interrupts a test does not want to wait for it.
	if err != nil && ctx.Err() == nil && !o.Interactive {
		t.d.postMortem(ctx, t.page)
	}
	err = errors.Join(err, t.d.close())
	if err == nil {
		t.finish(nil)
		return nil
	}
	result := judge(err, cfg.ScriptPath)
	t.finish(result)
	return result
}

func (d *driver) run(ctx context.Context, interactive bool) error {
	if table := d.ssh.table(); table != "" {
		for line := range strings.Lines(table) {
			d.bus.Say("", strings.TrimSuffix(line, "\n"))
		}
	}
	host, end := d.host()
	defer end()
	if interactive {
		return host.Interact(ctx, d.session())
	}
	ctx, stop := d.startTimer(ctx)
	defer stop()
	begin := time.Now()
	err := d.bus.Nested("", "run the VM test script", func() error {
		return host.Run(ctx, d.session())
	})
	if err == nil {
		err = d.syncDisks(ctx)
	}
	var failure *script.Failure
	if errors.As(err, &failure) {
		d.bus.Emit(event.TestFailure{Lines: failure.Lines, Script: d.cfg.ScriptPath, Line: failure.Line})
	} else if err != nil {
		d.bus.Emit(event.TestFailure{Lines: strings.Split(err.Error(), "\n")})
	}
	if err == nil {
		d.bus.Log(event.Info, "", fmt.Sprintf("test script finished in %.2fs", time.Since(begin).Seconds()))
	}
	return err
}

// host returns what runs the test's script, and a function that ends what it
// leaves behind.
func (d *driver) host() (script.Host, func()) {
	if d.cfg.ScriptLanguage() == Starlark {
		return starlark.Host{}, func() {}
	}
	interpreter := 0
	host := python.Host{Python: d.cfg.Python, Start: func(cmd *exec.Cmd) error {
		err := d.reaper.Spawn(cmd)
		if err == nil {
			interpreter = cmd.Process.Pid
		}
		return err
	}}
	return host, func() { d.reaper.Kill(interpreter) }
}

// judge finds the exit code that belongs to what ended a test, and says where in
// its script that was: to tracebacks, as nixpkgs' driver has them, every script is
// "<string>".
func judge(err error, path string) *RunError {
	var failure *script.Failure
	switch {
	case errors.Is(err, ErrGlobalTimeout):
		return &RunError{Err: err, code: 124}
	case errors.As(err, &failure):
		code := 1
		switch failure.Kind {
		case script.KindSyntax:
			code = 2
		case script.KindMachine:
			code = 3
		case script.KindExit:
			code = failure.ExitCode
		case script.KindAssertion, script.KindException:
		}
		where := ""
		if failure.Line > 0 {
			where = fmt.Sprintf(" at %s:%d", path, failure.Line)
		}
		return &RunError{Err: fmt.Errorf("test failed%s: %w", where, err), code: code}
	}
	return &RunError{Err: err, code: 3}
}
