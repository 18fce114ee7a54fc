package starlark

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	startime "go.starlark.net/lib/time"
	"go.starlark.net/starlark"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/script/symbols"
)

// arguments are the arguments of a call, checked, by parameter name. Those that
// were not given have their default, variadic ones are a Tuple.
type arguments map[string]starlark.Value

func (a arguments) str(name string) string {
	s, _ := starlark.AsString(a[name])
	return s
}

func (a arguments) function(name string) starlark.Callable {
	f, _ := a[name].(starlark.Callable)
	return f
}

// seconds returns a duration; ok is unset for None.
func (a arguments) seconds(name string) (seconds float64, ok bool) {
	return secondsOf(a[name])
}

// bind checks the arguments of a call of f.
func (r *runtime) bind(f symbols.Function, args starlark.Tuple, kwargs []starlark.Tuple) (arguments, error) {
	bound := arguments{}
	for _, p := range f.Params {
		switch {
		case p.Variadic:
			for _, v := range args {
				if err := check(f, p, v); err != nil {
					return nil, err
				}
			}
			bound[p.Name] = args
			args = nil
		case !p.KeywordOnly && len(args) > 0:
			bound[p.Name] = args[0]
			args = args[1:]
		}
	}
	if len(args) > 0 {
		return nil, fmt.Errorf("%s: got %d more positional arguments than there are parameters", f.Name, len(args))
	}
	for _, kv := range kwargs {
		name := string(kv[0].(starlark.String))
		i := slices.IndexFunc(f.Params, func(p symbols.Param) bool { return p.Name == name && !p.Variadic })
		if i < 0 {
			return nil, fmt.Errorf("%s: unexpected keyword argument %q", f.Name, name)
		}
		if bound[name] != nil {
			return nil, fmt.Errorf("%s: got several values for parameter %q", f.Name, name)
		}
		bound[name] = kv[1]
	}
	for _, p := range f.Params {
		if v := bound[p.Name]; v != nil && !p.Variadic {
			if err := check(f, p, v); err != nil {
				return nil, err
			}
			if p.For != "" && v != starlark.None {
				r.session.Bus.Log(event.Warning, "", fmt.Sprintf("%s: parameter %q is deprecated, use %q", f.Name, p.Name, p.For))
				if current := bound[p.For]; current == nil || current == starlark.None {
					bound[p.For] = v
				}
			}
		}
	}
	for _, p := range f.Params {
		if bound[p.Name] != nil {
			continue
		}
		if p.Default == "" {
			return nil, fmt.Errorf("%s: missing argument for %q", f.Name, p.Name)
		}
		v, err := literal(p.Default)
		if err != nil {
			return nil, fmt.Errorf("default of %q: %w", p.Name, err)
		}
		bound[p.Name] = v
	}
	return bound, nil
}

// literal reads a Python literal of the table.
func literal(text string) (starlark.Value, error) {
	switch text {
	case "None":
		return starlark.None, nil
	case "True", "False":
		return starlark.Bool(text == "True"), nil
	case "{}":
		return starlark.NewDict(0), nil
	}
	if s, err := strconv.Unquote(text); err == nil {
		return starlark.String(s), nil
	}
	if i, err := strconv.Atoi(text); err == nil {
		return starlark.MakeInt(i), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	return starlark.Float(f), err
}

// check says whether v is of the parameter's type.
func check(f symbols.Function, p symbols.Param, v starlark.Value) error {
	want := string(p.Type)
	ok := true
	switch p.Type {
	case symbols.Str:
		_, ok = v.(starlark.String)
	case symbols.OptStr:
		_, ok = v.(starlark.String)
		ok = ok || v == starlark.None
		want = "str or None"
	case symbols.Path:
		_, ok = v.(starlark.String)
		want = "str"
	case symbols.Bool:
		_, ok = v.(starlark.Bool)
	case symbols.Int:
		i, isInt := v.(starlark.Int)
		ok = isInt
		if ok {
			_, ok = i.Int64()
		}
	case symbols.Float:
		_, ok = starlark.AsFloat(v)
	case symbols.Duration, symbols.OptDuration:
		_, ok = secondsOf(v)
		want = "a duration: seconds, or a time.duration"
		if p.Type == symbols.OptDuration {
			ok = ok || v == starlark.None
			want += ", or None"
		}
	case symbols.Attempt, symbols.QMPFilter, symbols.Fn:
		_, ok = v.(starlark.Callable)
		want = "a function"
	case symbols.Condition:
		_, ok = v.(starlark.Callable)
		ok = ok || v == starlark.None
		want = "a function"
	case symbols.OptMachine:
		_, ok = machineName(v)
		ok = ok || v == starlark.None
		want = "a machine or None"
	case symbols.OptMachines, symbols.Machines:
		_, ok = machineNames(v)
		ok = ok || p.Type == symbols.OptMachines && v == starlark.None
		want = "a list of machines"
	case symbols.Attrs:
		_, ok = v.(*starlark.Dict)
		want = "dict"
	case symbols.EFIVars:
		_, ok = v.(starlark.Iterable)
		want = "list"
	case symbols.Command:
		_, ok = v.(starlark.String)
		want = "str"
	default:
	}
	if !ok {
		return fmt.Errorf("%s: parameter %q: got %s, want %s", f.Name, p.Name, v.Type(), want)
	}
	return nil
}

// secondsOf returns v as a number of seconds.
func secondsOf(v starlark.Value) (float64, bool) {
	if d, ok := v.(startime.Duration); ok {
		return float64(d) / 1e9, true
	}
	if _, ok := v.(starlark.Bool); ok || v == nil {
		return 0, false
	}
	f, ok := starlark.AsFloat(v)
	return f, ok && !math.IsNaN(f)
}

func machineName(v starlark.Value) (string, bool) {
	if m, ok := v.(*machineValue); ok {
		return m.info.Name, true
	}
	return starlark.AsString(v)
}

func machineNames(v starlark.Value) ([]string, bool) {
	all, ok := v.(starlark.Iterable)
	names := []string{}
	if ok {
		for m := range starlark.Elements(all) {
			name, isMachine := machineName(m)
			ok = ok && isMachine
			names = append(names, name)
		}
	}
	return names, ok
}

// wire returns the bound arguments as the driver takes them; parameters that
// are other names, and those that only scripts know, are left out.
func (a arguments) wire(f symbols.Function, leaveOut ...string) (map[string]any, error) {
	args := map[string]any{}
	for _, p := range f.Params {
		if p.For != "" || slices.Contains(leaveOut, p.Name) {
			continue
		}
		v := a[p.Name]
		switch p.Type {
		case symbols.Duration, symbols.OptDuration:
			s, ok := secondsOf(v)
			args[p.Name] = nil // no limit
			if ok && !math.IsInf(s, 0) {
				args[p.Name] = s
			}
		case symbols.OptMachine:
			args[p.Name] = nil
			if name, ok := machineName(v); ok {
				args[p.Name] = name
			}
		case symbols.OptMachines:
			args[p.Name] = nil
			if names, ok := machineNames(v); ok {
				args[p.Name] = names
			}
		case symbols.Machines: // variadic
			groups := [][]string{}
			for v := range starlark.Elements(v.(starlark.Tuple)) {
				names, _ := machineNames(v)
				groups = append(groups, names)
			}
			args[p.Name] = groups
		default:
			plain, err := fromStarlark(v, 0)
			if err != nil {
				return nil, fmt.Errorf("%s: parameter %q: %w", f.Name, p.Name, err)
			}
			args[p.Name] = plain
		}
	}
	return args, nil
}
