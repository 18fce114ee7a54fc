package starlark

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"sync"

	"go.starlark.net/lib/json"
	startime "go.starlark.net/lib/time"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	"vm-prebuild/testrun/script"
	"vm-prebuild/testrun/script/symbols"
)

// function implements a global function of the table.
type function func(r *runtime, thread *starlark.Thread, f symbols.Function, a arguments) (starlark.Value, error)

// invalidInName matches what cannot be part of a variable's name, as in
// nixpkgs' driver.
var invalidInName = regexp.MustCompile(`^[^A-Za-z_]|[^A-Za-z0-9_]`)

// define makes the globals of the script.
func (r *runtime) define() {
	r.environ = environment()
	r.globals = starlark.StringDict{}
	for _, f := range symbols.Functions() {
		if implementation := functions[f.Name]; implementation != nil {
			r.globals[f.Name] = r.builtin(f.In(symbols.Starlark), func(thread *starlark.Thread, f symbols.Function, a arguments) (starlark.Value, error) {
				return implementation(r, thread, f, a)
			})
		}
	}
	var machines, vlans []starlark.Value
	for _, info := range r.session.Machines {
		m := &machineValue{r: r, info: info}
		r.machines = append(r.machines, m)
		machines = append(machines, m)
		r.globals[invalidInName.ReplaceAllString(info.Name, "_")] = m
	}
	if len(r.machines) == 1 && !r.globals.Has("machine") {
		r.globals["machine"] = r.machines[0]
	}
	for _, number := range r.session.VLANs {
		v := &vlanValue{r: r, number: number}
		vlans = append(vlans, v)
		r.globals[fmt.Sprintf("vlan%d", number)] = v
	}
	all, networks := starlark.NewList(machines), starlark.NewList(vlans)
	clock := starlark.StringDict{"sleep": starlark.NewBuiltin("sleep", r.hostSleep)}
	maps.Copy(clock, startime.Module.Members)
	maps.Copy(r.globals, starlark.StringDict{
		"machines":        all,
		"machines_qemu":   all,
		"machines_nspawn": starlark.NewList(nil),
		"vlans":           networks,
		"log":             logValue{r},
		"driver": starlarkstruct.FromStringDict(starlark.String("Driver"), starlark.StringDict{
			"machines": all,
			"vlans":    networks,
			"out_dir":  starlark.String(r.session.OutDir),
			"tmp_dir":  starlark.String(r.session.TmpDir),
		}),
		"os": &starlarkstruct.Module{Name: "os", Members: starlark.StringDict{
			"environ": r.environ,
			"getcwd": starlark.NewBuiltin("getcwd", func(*starlark.Thread, *starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error) {
				return starlark.String(r.dir), nil
			}),
		}},
		"json":   json.Module,
		"time":   &starlarkstruct.Module{Name: "time", Members: clock},
		"re":     &starlarkstruct.Module{Name: "re", Members: regularExpressions()},
		"struct": starlark.NewBuiltin("struct", starlarkstruct.Make),
	})
}

func (r *runtime) hostSleep(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	a, err := r.bind(symbols.Function{Name: b.Name(), Params: []symbols.Param{{Name: "seconds", Type: symbols.Duration}}}, args, kwargs)
	if err != nil {
		return nil, err
	}
	s, _ := a.seconds("seconds")
	return starlark.None, r.sleep(thread, duration(s))
}

// functions are the global functions. Those without code of their own are
// calls of the driver.
var functions = map[string]function{
	"start_all":   driverCall,
	"join_all":    driverCall,
	"succeed_all": driverCall,
	"subtest": func(r *runtime, thread *starlark.Thread, _ symbols.Function, a arguments) (starlark.Value, error) {
		return r.subtest(thread, a.str("name"), a.function("fn"), bool(a["isolate"].Truth()))
	},
	"retry": func(r *runtime, thread *starlark.Thread, _ symbols.Function, a arguments) (starlark.Value, error) {
		fn := a.function("fn")
		return starlark.None, r.retry(thread, a, func(last bool) (bool, error) {
			args := starlark.Tuple{starlark.Bool(last)}
			if f, ok := fn.(*starlark.Function); ok && f.NumParams() == 0 {
				args = nil
			}
			v, err := starlark.Call(thread, fn, args, nil)
			return err == nil && bool(v.Truth()), err
		})
	},
	"polling_condition": newCondition,
	"create_machine":    createMachine,
	"test_script": func(r *runtime, thread *starlark.Thread, _ symbols.Function, _ arguments) (starlark.Value, error) {
		text, err := readScriptFile(r.session.ScriptPath)
		if err != nil {
			return nil, err
		}
		return starlark.None, r.session.Bus.Nested("", "run the VM test script", func() error {
			return r.withThread(contextOf(thread), "script", func(thread *starlark.Thread) error {
				_, err := r.execute(thread, r.scriptName(), text)
				return err
			})
		})
	},
	"serial_stdout_on":  serialStdout(true),
	"serial_stdout_off": serialStdout(false),
	"dump_machine_ssh":  dumpMachineSSH,
	"parallel":          parallel,
	"catch": func(r *runtime, thread *starlark.Thread, _ symbols.Function, a arguments) (starlark.Value, error) {
		v, err := starlark.Call(thread, a.function("fn"), nil, nil)
		switch {
		case err == nil:
			return starlark.Tuple{v, starlark.None}, nil
		case r.ending(thread, err):
			return nil, err
		}
		return starlark.Tuple{starlark.None, starlark.String(err.Error())}, nil
	},
	"assert_equal": func(_ *runtime, _ *starlark.Thread, _ symbols.Function, a arguments) (starlark.Value, error) {
		equal, err := starlark.Equal(a["actual"], a["expected"])
		if err != nil || equal {
			return starlark.None, err
		}
		return nil, expectation(a, fmt.Sprintf("%s != %s", a["actual"], a["expected"]))
	},
	"assert_true": func(_ *runtime, _ *starlark.Thread, _ symbols.Function, a arguments) (starlark.Value, error) {
		if a["value"].Truth() {
			return starlark.None, nil
		}
		return nil, expectation(a, fmt.Sprintf("%s is not true", a["value"]))
	},
	"assert_in": func(_ *runtime, _ *starlark.Thread, _ symbols.Function, a arguments) (starlark.Value, error) {
		in, err := contains(a["container"], a["member"])
		if err != nil || in {
			return starlark.None, err
		}
		return nil, expectation(a, fmt.Sprintf("%s not found in %s", a["member"], a["container"]))
	},
	"fail": func(_ *runtime, _ *starlark.Thread, _ symbols.Function, a arguments) (starlark.Value, error) {
		return nil, assertion(text(a["message"]))
	},
	"exit": func(_ *runtime, _ *starlark.Thread, _ symbols.Function, a arguments) (starlark.Value, error) {
		code, err := starlark.AsInt32(a["code"])
		if err != nil {
			return nil, err
		}
		return nil, &exitError{code: code & 0xff}
	},
}

// expectation is the failure of an assertion, with the script's own words
// behind ours, as unittest has it.
func expectation(a arguments, what string) error {
	if message := a.str("message"); message != "" {
		what += " : " + message
	}
	return assertion(what)
}

func contains(container, member starlark.Value) (bool, error) {
	switch c := container.(type) {
	case starlark.String:
		s, ok := starlark.AsString(member)
		if !ok {
			return false, fmt.Errorf("assert_in: a string cannot contain a %s", member.Type())
		}
		return strings.Contains(string(c), s), nil
	case starlark.Iterable:
		for v := range starlark.Elements(c) {
			if equal, err := starlark.Equal(v, member); err != nil || equal {
				return equal, err
			}
		}
		return false, nil
	}
	return false, fmt.Errorf("assert_in: a %s contains nothing", container.Type())
}

// driverCall is a function that the driver executes.
func driverCall(r *runtime, thread *starlark.Thread, f symbols.Function, a arguments) (starlark.Value, error) {
	args, err := a.wire(f)
	if err != nil {
		return nil, err
	}
	result, err := r.call(thread, "", f.Name, args)
	if err != nil || f.Result == symbols.None {
		return starlark.None, err
	}
	return toStarlark(result, f.Result)
}

// dumpMachineSSH prints how to log in to each machine.
func dumpMachineSSH(r *runtime, thread *starlark.Thread, f symbols.Function, a arguments) (starlark.Value, error) {
	args, err := a.wire(f)
	if err != nil {
		return nil, err
	}
	table, err := r.call(thread, "", f.Name, args)
	if text, _ := table.(string); text != "" {
		fmt.Fprintln(r.stdout, text)
	}
	return starlark.None, err
}

func serialStdout(on bool) function {
	return func(r *runtime, thread *starlark.Thread, _ symbols.Function, _ arguments) (starlark.Value, error) {
		_, err := r.call(thread, "", "serial_stdout", map[string]any{"on": on})
		return starlark.None, err
	}
}

func createMachine(r *runtime, thread *starlark.Thread, f symbols.Function, a arguments) (starlark.Value, error) {
	args, err := a.wire(f)
	if err != nil {
		return nil, err
	}
	result, err := r.call(thread, "", f.Name, args)
	if err != nil {
		return nil, err
	}
	info, ok := result.(script.MachineInfo)
	if !ok {
		return nil, fmt.Errorf("create_machine: got %T from the driver", result)
	}
	return &machineValue{r: r, info: info}, nil
}

// parallel calls functions at once, each on a thread of its own. When one
// fails, the others are cancelled.
func parallel(r *runtime, thread *starlark.Thread, _ symbols.Function, a arguments) (starlark.Value, error) {
	fns := a["fns"].(starlark.Tuple)
	results := make([]starlark.Value, len(fns))
	errs := make([]error, len(fns))
	outer, subtest := contextOf(thread), thread.Local(insideKey)
	ctx, cancel := context.WithCancelCause(outer)
	defer cancel(nil)
	r.waiting(func() {
		var wg sync.WaitGroup
		for i, fn := range fns {
			wg.Go(func() {
				errs[i] = r.do(ctx, fmt.Sprintf("%s %d", fn, i+1), func(thread *starlark.Thread) error {
					thread.SetLocal(insideKey, subtest)
					v, err := starlark.Call(thread, fn, nil, nil)
					results[i] = v
					return err
				})
				if errs[i] != nil {
					cancel(errGivenUp)
				}
			})
		}
		wg.Wait()
	})
	if outer.Err() != nil {
		return nil, context.Cause(outer)
	}
	failed := &parallelError{of: len(fns)}
	for _, err := range errs {
		if err != nil && !givenUp(err) {
			failed.errs = append(failed.errs, err)
		}
	}
	if len(failed.errs) > 0 {
		return nil, failed
	}
	return starlark.NewList(results), nil
}

var errGivenUp = errors.New("given up, as another function of parallel failed")

func givenUp(err error) bool {
	return errors.Is(err, errGivenUp) || strings.HasSuffix(err.Error(), errGivenUp.Error())
}

// parallelError tells of the functions that failed. The first one's backtrace
// continues that of the call.
type parallelError struct {
	errs []error
	of   int
}

func (e *parallelError) Unwrap() error { return e.errs[0] }
func (e *parallelError) Error() string {
	if len(e.errs) == 1 {
		return e.errs[0].Error()
	}
	texts := []string{fmt.Sprintf("%d of %d functions failed:", len(e.errs), e.of)}
	for _, err := range e.errs {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "\n")
}
