package starlark

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"vm-prebuild/testrun/script"
)

// scriptError is an error that scripts meet, with the name that it has in
// Python.
type scriptError struct {
	name string
	kind script.Kind
	err  error
}

func (e *scriptError) Error() string { return e.err.Error() }
func (e *scriptError) Unwrap() error { return e.err }

func assertion(message string) error {
	return &scriptError{name: "RequestedAssertionFailed", kind: script.KindAssertion, err: errors.New(message)}
}

// callError names an error of the driver.
func callError(err error) error {
	kind := script.KindOf(err)
	name := "Error"
	switch kind {
	case script.KindAssertion:
		name = "RequestedAssertionFailed"
	case script.KindMachine:
		name = "MachineError"
	default:
		kind = script.KindException
	}
	return &scriptError{name: name, kind: kind, err: err}
}

// exitError ends the script as Python's sys.exit does.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("test script called exit(%d)", e.code) }

// ending reports whether err cannot be caught: the test is over.
func (r *runtime) ending(thread *starlark.Thread, err error) bool {
	var exit *exitError
	return errors.As(err, &exit) || contextOf(thread).Err() != nil
}

// reason is the text of an error without its backtrace; empty for a script
// that leaves with exit code 0.
func reason(err error) string {
	var exit *exitError
	if errors.As(err, &exit) && exit.code == 0 {
		return ""
	}
	return err.Error()
}

// result is how the script ended, as script.Host says it.
func (r *runtime) result(ctx context.Context, err error) error {
	var exit *exitError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &exit) && exit.code == 0:
		err = nil
	}
	if err == nil {
		return r.subtests.result()
	}
	f := r.failure(err)
	if f == nil {
		return err
	}
	if len(r.subtests.failed) > 0 {
		f.Lines = append(f.Lines, "", "Before that, "+r.subtests.failure().Message)
	}
	return f
}

// failure is the account of an error of the script; nil when the script never
// ran.
func (r *runtime) failure(err error) *script.Failure {
	var (
		exit     *exitError
		known    *scriptError
		syntaxes syntax.Error
		names    resolve.ErrorList
	)
	f := &script.Failure{Kind: script.KindException, ExitCode: 1}
	name := "Error"
	frames, eval := r.frames(err)
	switch {
	case errors.As(err, &exit):
		f.Kind, f.ExitCode, f.Message = script.KindExit, exit.code, exit.Error()
		f.Lines = []string{f.Message}
		f.Line = r.lineOf(frames)
		return f
	case !eval && errors.As(err, &syntaxes):
		f.Kind, f.Lines, f.Line = script.KindSyntax, []string{fmt.Sprintf("%s: %s", syntaxes.Pos, syntaxes.Msg)}, int(syntaxes.Pos.Line)
		f.Message = f.Lines[0]
		return f
	case !eval && errors.As(err, &names):
		f.Kind, f.Line = script.KindSyntax, int(names[0].Pos.Line)
		for _, e := range names {
			f.Lines = append(f.Lines, fmt.Sprintf("%s: %s", e.Pos, e.Msg))
		}
		f.Message = f.Lines[0]
		return f
	case !eval:
		return nil
	case errors.As(err, &known):
		name, f.Kind = known.name, known.kind
	}
	f.Message, _, _ = strings.Cut(err.Error(), "\n")
	if f.Kind == script.KindException {
		f.Message = name + ": " + f.Message
	}
	f.Line = r.lineOf(frames)
	f.Lines = []string{"Traceback (most recent call last):"}
	f.Lines = append(f.Lines, r.account(frames)...)
	f.Lines = append(f.Lines, "")
	f.Lines = append(f.Lines, strings.Split(strings.TrimRight(name+": "+err.Error(), "\n"), "\n")...)
	return f
}

// account shows frames as Python shows them: three of the same at most.
func (r *runtime) account(frames []starlark.CallFrame) []string {
	const most = 3
	var lines []string
	for i := 0; i < len(frames); {
		frame, same := frames[i], 1
		for i+same < len(frames) && samePlace(frames[i+same].Pos, frame.Pos) {
			same++
		}
		i += same
		for range min(same, most) {
			lines = append(lines, fmt.Sprintf("  File %q, line %d, in %s", frame.Pos.Filename(), frame.Pos.Line, frame.Name))
			if text := r.sourceLine(frame.Pos); text != "" {
				lines = append(lines, "    "+text)
			}
		}
		if same > most {
			lines = append(lines, fmt.Sprintf("  [Previous line repeated %d more times]", same-most))
		}
	}
	return lines
}

// frames are the calls of Starlark functions that led to err, outermost first:
// one behind the other where a file is loaded, or a thread runs a function.
// eval is unset when err is not one of a running script.
func (r *runtime) frames(err error) (all []starlark.CallFrame, eval bool) {
	for ; err != nil; err = errors.Unwrap(err) {
		if e, ok := err.(*starlark.EvalError); ok { //nolint:errorlint // walks the chain itself
			eval = true
			for _, frame := range e.CallStack {
				if r.sources[frame.Pos.Filename()] != nil {
					all = append(all, frame)
				}
			}
		}
	}
	return all, eval
}

// lineOf is where in the script itself something failed.
func (r *runtime) lineOf(frames []starlark.CallFrame) int {
	for i := len(frames) - 1; i >= 0; i-- {
		if frames[i].Pos.Filename() == r.scriptName() {
			return int(frames[i].Pos.Line)
		}
	}
	return 0
}

func (r *runtime) sourceLine(pos syntax.Position) string {
	lines := r.sources[pos.Filename()]
	if i := int(pos.Line) - 1; i >= 0 && i < len(lines) {
		return strings.TrimSpace(lines[i])
	}
	return ""
}

func samePlace(a, b syntax.Position) bool {
	return a.Filename() == b.Filename() && a.Line == b.Line
}
