// Package cli is what the command lines of all our tools share: parsing with
// kong, help with examples, one-line usage errors, exit codes, signals, and man
// pages and shell completions made from the same model. A tool describes itself
// as an [App] and its main function calls [App.Main].
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// The exit codes that all tools share. A tool that a signal ended exits with
// 128 plus the signal's number, as a shell reports it.
const (
	ExitOK             = 0
	ExitFailed         = 1   // what was tested or checked failed
	ExitUsage          = 2   // wrong usage or configuration
	ExitInfrastructure = 3   // a machine died, no space, nix failed, …
	ExitTimeout        = 124 // a global time-out ended the run
)

// App describes a tool.
type App struct {
	Name        string
	Description string    // what the tool does, in a sentence or two
	Examples    []Example // shown by --help and in the man page
	ExitStatus  []Status  // meanings of the exit codes; nil means [DefaultStatus]

	// Groups are the titles of groups of flags, which have the tag group, by its
	// value.
	Groups map[string]string

	// EmptyValues allows flags to have empty values, which are refused elsewhere:
	// they come from shell variables that are not set.
	EmptyValues bool

	// Rewrite changes the arguments before they are parsed into the model, for
	// what kong cannot express; may be nil. Its error is one of usage.
	Rewrite func(model *kong.Application, args []string) ([]string, error)

	// Misused is told of an error of usage and returns the one to end with, for a tool
	// that has something to do all the same; may be nil.
	Misused func(ctx context.Context, args []string, usage error) error
}

// Example is a command line and what it does. A command of a tool has examples
// of its own, shown in its help, if it has a method Examples() []Example.
type Example struct{ Text, Command string }

// Status is an exit code and its meaning.
type Status struct {
	Code    int
	Meaning string
}

// DefaultStatus is what the exit codes mean when a tool says nothing else.
func DefaultStatus() []Status {
	return []Status{
		{ExitOK, "success"},
		{ExitFailed, "what was tested or checked failed"},
		{ExitUsage, "wrong usage or configuration"},
		{ExitInfrastructure, "something needed failed: nix, a machine, the disk"},
	}
}

// exitError is an error that decides the exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }
func (e *exitError) ExitCode() int { return e.code }

// WithExitCode makes err end the tool with the given exit code.
func WithExitCode(code int, err error) error { return &exitError{code, err} }

// childExit is the exit code of a command that a tool was asked to run.
type childExit int

func (e childExit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }
func (e childExit) ExitCode() int { return int(e) }

// Exit makes the tool exit with the code of a command that it was asked to run
// and that has said itself what there is to say: nothing is printed. Zero is
// success.
func Exit(code int) error {
	if code == 0 {
		return nil
	}
	return childExit(code)
}

// interrupted is the cause of the end of a context that a signal ended.
type interrupted struct{ sig syscall.Signal }

func (i interrupted) Error() string { return "interrupted by signal: " + i.sig.String() }
func (i interrupted) ExitCode() int { return 128 + int(i.sig) }

// Main runs the tool with the process's arguments and exits. The first SIGINT,
// SIGTERM or SIGHUP ends the context that commands get; a second one ends the
// process at once.
func (a App) Main(grammar any) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		sig := <-signals
		signal.Stop(signals)
		cancel(interrupted{sig.(syscall.Signal)})
	}()
	os.Exit(a.Run(ctx, grammar, os.Args[1:], &IO{os.Stdout, os.Stderr}))
}

// Run parses args into grammar (a pointer to a kong struct), calls the Run
// method of the selected command, reports its error on out.Stderr and returns
// the exit code. Run methods may take a context.Context and a *[IO].
//
// An error decides the exit code by a method ExitCode() int; any other error
// means [ExitInfrastructure].
func (a App) Run(ctx context.Context, grammar any, args []string, out *IO) int {
	exited := false // by a flag that is all there is to do: --help, --man, …
	parser, err := kong.New(grammar,
		kong.Name(a.Name), kong.Description(a.Description),
		kong.Writers(out.Stdout, out.Stderr),
		kong.Exit(func(int) { exited = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Help(a.printHelp), kong.Groups(a.Groups),
		kong.Embed(&standardFlags{}),
		kong.Bind(out, &a), kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		return a.fail(out, err)
	}
	given := args
	if a.Rewrite != nil {
		if args, err = a.Rewrite(parser.Model, args); err != nil {
			return a.misused(ctx, given, out, usageError(a.Name, err))
		}
	}
	parsed, err := parser.Parse(args)
	if exited {
		return ExitOK
	}
	if err != nil {
		return a.misused(ctx, given, out, usageError(a.Name, err))
	}
	if !a.EmptyValues {
		if err := checkEmpty(parsed); err != nil {
			name := a.Name
			if selected := parsed.Selected(); selected != nil {
				name = selected.FullPath()
			}
			return a.misused(ctx, given, out, usageError(name, err))
		}
	}
	return a.end(ctx, out, parsed.Run())
}

// misused is the end of a tool whose arguments cannot be used.
func (a App) misused(ctx context.Context, args []string, out *IO, usage error) int {
	if a.Misused != nil {
		usage = a.Misused(ctx, args, usage)
	}
	return a.end(ctx, out, usage)
}

// end returns the exit code for the error that all has ended with, if any, and
// prints it.
func (a App) end(ctx context.Context, out *IO, err error) int {
	if e, ok := errors.AsType[childExit](err); ok {
		return int(e)
	}
	// Whatever error a command made of its context's end, the signal is why.
	if i, ok := errors.AsType[interrupted](context.Cause(ctx)); ok && err != nil {
		err = i
	}
	if err != nil {
		return a.fail(out, err)
	}
	return ExitOK
}

// fail prints err and returns its exit code.
func (a App) fail(out *IO, err error) int {
	fmt.Fprintf(out.Stderr, "%s: %s\n", a.Name, strings.TrimRight(err.Error(), "\n"))
	var coder kong.ExitCoder
	if !errors.As(err, &coder) {
		return ExitInfrastructure
	}
	// A child's exit code says nothing about ours.
	if _, child := coder.(*exec.ExitError); child {
		return ExitInfrastructure
	}
	return coder.ExitCode()
}

// checkEmpty refuses flags and arguments that were given an empty value.
func checkEmpty(parsed *kong.Context) error {
	for _, p := range parsed.Path {
		var value *kong.Value
		switch {
		case p.Flag != nil:
			value = p.Flag.Value
		case p.Positional != nil:
			value = p.Positional
		default:
			continue
		}
		var empty bool
		switch v := value.Target.Interface().(type) {
		case string:
			empty = v == ""
		case []string:
			empty = slices.Contains(v, "")
		}
		if empty {
			return fmt.Errorf("%s: the value is empty", value.ShortSummary())
		}
	}
	return nil
}

// usageError turns kong's error into one line and a hint that names the
// command whose help says more.
func usageError(name string, err error) error {
	if parseErr, ok := errors.AsType[*kong.ParseError](err); ok && parseErr.Context != nil {
		if selected := parseErr.Context.Selected(); selected != nil {
			name = selected.FullPath()
		}
	}
	return Usagef("%s\nhint: run '%s --help'", inWords(err.Error()), name)
}

// missingValue is what kong says of a flag at the end of the command line.
var missingValue = regexp.MustCompile(`expected \w+ value but got "EOL" \(<EOL>\)`)

// inWords puts what kong says in the terms of its parser, and of Go's types,
// into the user's.
func inWords(text string) string {
	text = missingValue.ReplaceAllString(text, "the value is missing")
	return strings.ReplaceAll(text, "expected a valid 64 bit int but got", "expected a whole number but got")
}

// Usagef makes an error about the command line or a configuration file.
func Usagef(format string, args ...any) error {
	return WithExitCode(ExitUsage, fmt.Errorf(format, args...))
}

// printHelp is kong's help, followed by examples.
func (a App) printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	if ctx.Selected() == nil {
		a.printUsage(&options, ctx)
	} else {
		hideStandardFlags(ctx.Model)
	}
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	examples := a.Examples
	if selected := ctx.Selected(); selected != nil {
		examples = examplesOf(selected)
	}
	if len(examples) == 0 {
		return nil
	}
	fmt.Fprint(ctx.Stdout, "\nExamples:\n")
	for _, e := range examples {
		fmt.Fprintf(ctx.Stdout, "  # %s\n  %s\n", e.Text, e.Command)
	}
	return nil
}

// printUsage tells of a command whose name need not be given what kong does
// not: its arguments.
func (a App) printUsage(options *kong.HelpOptions, ctx *kong.Context) {
	n := ctx.Model.DefaultCmd
	if n == nil || len(n.Positional) == 0 {
		return
	}
	options.NoAppSummary = true
	fmt.Fprintf(ctx.Stdout, "Usage: %s %s\n       %[1]s <command> [flags]\n", a.Name, strings.TrimPrefix(n.Summary(), n.Path()+" "))
	ctx.Model.Positional = n.Positional
}

// examplesOf are the examples of a command.
func examplesOf(n *kong.Node) []Example {
	if c, ok := n.Target.Addr().Interface().(interface{ Examples() []Example }); ok {
		return c.Examples()
	}
	return nil
}

func (a App) exitStatus() []Status {
	if a.ExitStatus == nil {
		return DefaultStatus()
	}
	return a.ExitStatus
}
