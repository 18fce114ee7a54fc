// Package script holds what every script language has in common: the [Host]
// interface that runs one test script, and the [Request] through which a
// script reaches the machines. Each language is one folder below.
package script

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"vm-prebuild/testrun/event"
)

// Host runs test scripts of one language.
type Host interface {
	// Run executes the script of s and returns when it has ended. It returns
	// nil when the script ran to its end, a *[Failure] when the script itself
	// failed, and any other error when it could not be run (no interpreter,
	// interpreter died). When ctx ends, the script is killed and ctx's cause
	// is returned.
	Run(ctx context.Context, s Session) error

	// Interact offers the symbols of s on the terminal until the user leaves.
	Interact(ctx context.Context, s Session) error
}

// Session is the running test as a script sees it.
type Session struct {
	ScriptPath string        // file that holds the script's text
	Machines   []MachineInfo // sorted by name; globals of the script
	VLANs      []int         // VLAN numbers; globals vlan1, vlan2, …
	OutDir     string        // absolute directory for results
	TmpDir     string        // runtime directory of this driver
	Bus        *event.Bus    // for what the host itself reports
	Caller     Caller        // executes what the script asks for

	KeepGoing bool   // a subtest that fails does not end the script
	Subtest   string // regular expression (Python's and RE2's common part): only matching subtests run; "" means all
	DebugHook string // how to attach to a breakpoint (nixpkgs' breakpointHook); "" means that breakpoints do nothing
}

// MachineInfo is what a script can read of a machine without asking it.
type MachineInfo struct {
	Name      string `json:"name"`
	StateDir  string `json:"state_dir"`
	SharedDir string `json:"shared_dir"`
	OutDir    string `json:"out_dir"`
	// StartCommand is the start script or the command line given for it; empty
	// for machines that scripts make.
	StartCommand string `json:"start_command,omitempty"`
}

// Environment is the environment and working directory of the script.
type Environment struct {
	// Env has the form KEY=value. Machines are spawned with it, as scripts set
	// os.environ["NIX_DISK_IMAGE"]; their working directory is their own.
	Env []string `json:"env"`
	// Dir is what relative host paths in calls mean.
	Dir string `json:"cwd"`
}

// Request is one call of a script: a machine's method or, with an empty
// Machine, one of the driver's.
type Request struct {
	Machine string
	Method  string
	Args    json.RawMessage // a JSON object, keyed by the Python parameter names
	Env     Environment     // of the script at the time of the call

	// Callback has the script check its polling conditions; nil when it has
	// none. Waits call it between polls; its error ends the call.
	Callback func(context.Context) error
}

// Caller executes requests; it is safe for concurrent use. The result is
// anything that encoding/json can write.
type Caller interface {
	Call(ctx context.Context, r Request) (any, error)
}

// Failure says that the script ran and failed.
type Failure struct {
	Kind     Kind
	Message  string   // one line
	Lines    []string // account for the user: traceback and message
	ExitCode int      // of sys.exit(n); 1 otherwise
	Line     int      // line of the script, from 1; 0 when unknown
}

func (f *Failure) Error() string { return f.Message }

// Kind tells failures apart that are shown or counted differently.
type Kind string

// The kinds of failure.
const (
	// KindAssertion is an expectation on a machine that was not met.
	KindAssertion Kind = "assertion"
	// KindMachine is a machine that could not do what was asked of it.
	KindMachine Kind = "machine"
	// KindException is any other exception of the script.
	KindException Kind = "exception"
	// KindSyntax is a script that could not be compiled.
	KindSyntax Kind = "syntax"
	// KindExit is a script that left through sys.exit(n), n ≠ 0.
	KindExit Kind = "exit"
)

// Kinder is implemented by errors of a Caller that know their kind; all others
// count as KindMachine.
type Kinder interface{ ScriptKind() string }

// KindOf returns the kind that err asks for.
func KindOf(err error) Kind {
	var k Kinder
	if errors.As(err, &k) {
		return Kind(k.ScriptKind())
	}
	return KindMachine
}

// Noted is implemented by errors whose message scripts may compare, and which
// know more than it says. Their Error gives both.
type Noted interface{ Parts() (message, note string) }

// Decode reads the arguments of r into dst.
func (r Request) Decode(dst any) error {
	if len(r.Args) == 0 {
		return nil
	}
	if err := json.Unmarshal(r.Args, dst); err != nil {
		return &ArgumentError{Method: r.Method, Err: err}
	}
	return nil
}

// ArgumentError says that a script called a method with what it does not take.
type ArgumentError struct {
	Method string
	Err    error
}

func (e *ArgumentError) Error() string {
	var wrong *json.UnmarshalTypeError
	if errors.As(e.Err, &wrong) {
		what, _, _ := strings.Cut(wrong.Value, " ") // "number 1.5"
		return fmt.Sprintf("%s(): argument %s cannot be of type %s", e.Method, strings.ToLower(wrong.Field), what)
	}
	return fmt.Sprintf("%s(): %v", e.Method, e.Err)
}

func (e *ArgumentError) Unwrap() error { return e.Err }

// ScriptKind implements Kinder.
func (e *ArgumentError) ScriptKind() string { return "type" }
