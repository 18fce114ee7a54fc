package starlark

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"vm-prebuild/testrun/script"
	"vm-prebuild/testrun/script/symbols"
)

// runtime is one script under way.
//
// Its threads (of parallel, of polling conditions) share globals, so only one
// interprets at a time, as in Python: the one that holds lock. It lets go of it
// while it waits for a machine or for time to pass.
type runtime struct {
	session script.Session
	stdout  io.Writer
	stderr  io.Writer
	dir     string // working directory: what relative paths mean

	// ctx is the script's, for what has no thread: attributes of machines.
	ctx context.Context

	lock chan struct{} // full while a thread interprets; guards all below

	globals    starlark.StringDict
	environ    *starlark.Dict // os.environ
	machines   []*machineValue
	sources    map[string][]string // lines by file name
	modules    map[string]*module
	methods    map[string]map[string]symbols.Function // by class
	conditions []*condition                           // active, outermost first
	subtests   subtests
}

func (r *runtime) acquire() { r.lock <- struct{}{} }
func (r *runtime) release() { <-r.lock }

// waiting calls f while other threads interpret.
func (r *runtime) waiting(f func()) {
	r.release()
	defer r.acquire()
	f()
}

// contextKey is where a thread keeps its context.
const contextKey = "context"

func contextOf(thread *starlark.Thread) context.Context {
	ctx, _ := thread.Local(contextKey).(context.Context)
	return ctx
}

// maxDepth is how deep functions may call each other, as in Python.
const maxDepth = 1000

// depthSteps is after how many steps of the interpreter the depth is looked at.
const depthSteps = 500

// withThread calls f with a new thread, which is cancelled when ctx ends. The
// caller holds the lock, as f does.
func (r *runtime) withThread(ctx context.Context, name string, f func(*starlark.Thread) error) error {
	thread := &starlark.Thread{
		Name:  name,
		Load:  r.load,
		Print: func(_ *starlark.Thread, text string) { fmt.Fprintln(r.stdout, text) },
	}
	thread.SetLocal(contextKey, ctx)
	thread.SetMaxExecutionSteps(depthSteps)
	thread.OnMaxSteps = func(thread *starlark.Thread) {
		if thread.CallStackDepth() > maxDepth {
			thread.Cancel("functions call each other more than 1000 deep")
		}
		thread.SetMaxExecutionSteps(thread.ExecutionSteps() + depthSteps)
	}
	stop := context.AfterFunc(ctx, func() { thread.Cancel(context.Cause(ctx).Error()) })
	defer stop()
	return f(thread)
}

// announce prints the names of the script's globals, as nixpkgs' driver does.
func (r *runtime) announce() {
	var machines, vlans, general []string
	for _, name := range slices.Sorted(maps.Keys(r.globals)) {
		switch r.globals[name].(type) {
		case *machineValue:
			machines = append(machines, name)
		case *vlanValue:
			vlans = append(vlans, name)
		}
	}
	for _, f := range symbols.Functions() {
		general = append(general, f.Name)
	}
	for _, v := range symbols.Values() {
		general = append(general, v.Name)
	}
	general = slices.DeleteFunc(general, func(name string) bool { return !r.globals.Has(name) })
	var groups []string
	for _, g := range [][]string{machines, vlans, general} {
		if len(g) > 0 {
			groups = append(groups, strings.Join(g, ", "))
		}
	}
	fmt.Fprintf(r.stdout, "additionally exposed symbols:\n    %s\n", strings.Join(groups, ",\n    "))
}

// call has the driver execute a method; machine is empty for its own.
func (r *runtime) call(thread *starlark.Thread, machine, method string, args map[string]any) (any, error) {
	return r.callWith(contextOf(thread), machine, method, args)
}

func (r *runtime) callWith(ctx context.Context, machine, method string, args map[string]any) (any, error) {
	text, err := json.Marshal(args)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	request := script.Request{Machine: machine, Method: method, Args: text, Env: r.environment()}
	if len(r.conditions) > 0 {
		request.Callback = r.callback
	}
	var result any
	r.waiting(func() { result, err = r.session.Caller.Call(ctx, request) })
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, callError(err)
	}
	return result, nil
}

// environment is that of os.environ, in which scripts set NIX_DISK_IMAGE.
func (r *runtime) environment() script.Environment {
	env := script.Environment{Env: []string{}, Dir: r.dir}
	for _, item := range r.environ.Items() {
		key, ok := starlark.AsString(item[0])
		value, ok2 := starlark.AsString(item[1])
		if ok && ok2 {
			env.Env = append(env.Env, key+"="+value)
		}
	}
	return env
}

func environment() *starlark.Dict {
	all := os.Environ()
	d := starlark.NewDict(len(all))
	for _, entry := range all {
		if key, value, ok := strings.Cut(entry, "="); ok {
			_ = d.SetKey(starlark.String(key), starlark.String(value)) // strings can be keys
		}
	}
	return d
}

// do calls f with a new thread that holds the lock.
func (r *runtime) do(ctx context.Context, name string, f func(*starlark.Thread) error) error {
	r.acquire()
	defer r.release()
	return r.withThread(ctx, name, f)
}
