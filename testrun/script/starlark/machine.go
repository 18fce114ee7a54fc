package starlark

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.starlark.net/starlark"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/script"
	"vm-prebuild/testrun/script/symbols"
)

// A method implements a function of the table on a receiver. Its arguments are
// checked already.
type method[R any] func(r *runtime, thread *starlark.Thread, receiver R, f symbols.Function, a arguments) (starlark.Value, error)

// builtin makes a Starlark function of one of the table.
func (r *runtime) builtin(f symbols.Function, call func(*starlark.Thread, symbols.Function, arguments) (starlark.Value, error)) *starlark.Builtin {
	return starlark.NewBuiltin(f.Name, func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		a, err := r.bind(f, args, kwargs)
		if err != nil {
			return nil, err
		}
		return call(thread, f, a)
	})
}

// attribute returns what receiver has by that name according to the table: a
// method, for which own has code where it is not just a call of the driver.
func attribute[R any](r *runtime, receiver R, class, name string, own map[string]method[R], otherwise method[R]) starlark.Value {
	f, ok := r.methodsOf(class)[name]
	if !ok {
		return nil
	}
	if f.AliasOf != "" {
		r.session.Bus.Log(event.Warning, "", fmt.Sprintf("%s is deprecated, use %s", f.Name, f.Deprecated))
		return attribute(r, receiver, class, f.AliasOf, own, otherwise)
	}
	implementation := own[name]
	if implementation == nil {
		implementation = otherwise
	}
	return r.builtin(f, func(thread *starlark.Thread, f symbols.Function, a arguments) (starlark.Value, error) {
		return implementation(r, thread, receiver, f, a)
	})
}

// methodsOf returns the methods of a class by name, as Starlark has them.
func (r *runtime) methodsOf(class string) map[string]symbols.Function {
	methods := r.methods[class]
	if methods == nil {
		methods = map[string]symbols.Function{}
		for _, f := range symbols.MethodsOf(class) {
			if f.Only != symbols.Python {
				methods[f.Name] = f.In(symbols.Starlark)
			}
		}
		r.methods[class] = methods
	}
	return methods
}

// names lists the attributes of a class.
func names(class string) []string {
	var all []string
	for _, f := range symbols.MethodsOf(class) {
		if f.Only != symbols.Python && f.AliasOf == "" {
			all = append(all, f.Name)
		}
	}
	for c, ok := symbols.ClassNamed(class); ok; c, ok = symbols.ClassNamed(c.Base) {
		for _, a := range c.Attributes {
			if a.Only != symbols.Python {
				all = append(all, a.Name)
			}
		}
	}
	slices.Sort(all)
	return all
}

// machineValue is a machine of the script.
type machineValue struct {
	r    *runtime
	info script.MachineInfo
}

var (
	_ starlark.HasAttrs    = (*machineValue)(nil)
	_ starlark.HasSetField = (*machineValue)(nil)
)

func (m *machineValue) String() string        { return "<QemuMachine " + m.info.Name + ">" }
func (m *machineValue) Type() string          { return "QemuMachine" }
func (m *machineValue) Freeze()               {}
func (m *machineValue) Truth() starlark.Bool  { return true }
func (m *machineValue) Hash() (uint32, error) { return starlark.String(m.info.Name).Hash() }
func (m *machineValue) AttrNames() []string   { return names(m.Type()) }

// Attr returns a method, or an attribute. The interpreter names no thread here,
// so asking the driver ends with the script, not with a function of parallel.
func (m *machineValue) Attr(name string) (starlark.Value, error) {
	switch name {
	case "name":
		return starlark.String(m.info.Name), nil
	case "state_dir":
		return starlark.String(m.info.StateDir), nil
	case "shared_dir":
		return starlark.String(m.info.SharedDir), nil
	case "out_dir":
		return starlark.String(m.info.OutDir), nil
	case "booted", "connected":
		result, err := m.r.callWith(m.r.ctx, m.info.Name, "get_attribute", map[string]any{"name": name})
		if err != nil {
			return nil, err
		}
		return toStarlark(result, symbols.Bool)
	}
	return attribute(m.r, m, m.Type(), name, machineMethods, machineCall), nil
}

// SetField changes an attribute.
func (m *machineValue) SetField(name string, v starlark.Value) error {
	var value any
	switch name {
	case "state_dir", "shared_dir", "out_dir":
		path, ok := starlark.AsString(v)
		if !ok {
			return fmt.Errorf("%s.%s: got %s, want str", m.info.Name, name, v.Type())
		}
		value = path
	case "booted", "connected":
		value = bool(v.Truth())
	default:
		return starlark.NoSuchAttrError(fmt.Sprintf("cannot assign to .%s of machine %q", name, m.info.Name))
	}
	if _, err := m.r.callWith(m.r.ctx, m.info.Name, "set_attribute", map[string]any{"name": name, "value": value}); err != nil {
		return err
	}
	switch name {
	case "state_dir":
		m.info.StateDir = value.(string)
	case "shared_dir":
		m.info.SharedDir = value.(string)
	case "out_dir":
		m.info.OutDir = value.(string)
	}
	return nil
}

// machineCall is a method that the driver executes.
func machineCall(r *runtime, thread *starlark.Thread, m *machineValue, f symbols.Function, a arguments) (starlark.Value, error) {
	if err := r.beforeCommand(thread, f); err != nil {
		return nil, err
	}
	args, err := a.wire(f)
	if err != nil {
		return nil, err
	}
	result, err := r.call(thread, m.info.Name, f.Name, args)
	if err != nil {
		return nil, err
	}
	if f.Result == symbols.None {
		return starlark.None, nil
	}
	return toStarlark(result, f.Result)
}

// machineMethods are those that are more than a call of the driver.
var machineMethods = map[string]method[*machineValue]{
	"log": func(r *runtime, _ *starlark.Thread, m *machineValue, _ symbols.Function, a arguments) (starlark.Value, error) {
		r.session.Bus.Say(m.info.Name, a.str("msg"))
		return starlark.None, nil
	},
	"nested": func(r *runtime, thread *starlark.Thread, m *machineValue, _ symbols.Function, a arguments) (starlark.Value, error) {
		return r.nested(thread, event.BlockOpen{Machine: m.info.Name, Text: a.str("msg"), Attrs: attributesOf(a["attrs"])}, a.function("fn"))
	},
	"sleep": func(r *runtime, thread *starlark.Thread, m *machineValue, f symbols.Function, a arguments) (starlark.Value, error) {
		if a["duration"] == starlark.None {
			return nil, fmt.Errorf("sleep: missing argument for %q", "duration")
		}
		return machineCall(r, thread, m, f, a)
	},
	"parallel": func(r *runtime, thread *starlark.Thread, m *machineValue, f symbols.Function, a arguments) (starlark.Value, error) {
		commands := a["commands"].(starlark.Tuple)
		v, err := machineCall(r, thread, m, f, a)
		if err != nil {
			return nil, err
		}
		return outputs(m.info.Name, commands, v)
	},
	"wait_for_qmp_event": waitForQMPEvent,
	"rollback": func(r *runtime, thread *starlark.Thread, m *machineValue, _ symbols.Function, a arguments) (starlark.Value, error) {
		return r.rollback(thread, []string{m.info.Name}, func() (starlark.Value, error) {
			return starlark.Call(thread, a.function("fn"), nil, nil)
		})
	},
}

// outputs takes the standard outputs of the results of parallel, all of which
// must have succeeded.
func outputs(machine string, commands starlark.Tuple, results starlark.Value) (starlark.Value, error) {
	list, ok := results.(*starlark.List)
	if !ok || list.Len() != len(commands) {
		return nil, fmt.Errorf("machine %q: got %s instead of %d results", machine, results, len(commands))
	}
	var failed []string
	all := make([]starlark.Value, list.Len())
	for i := range all {
		result, _ := list.Index(i).(*starlark.Dict)
		if result == nil {
			return nil, fmt.Errorf("machine %q: got %s instead of a result", machine, list.Index(i))
		}
		status, _, _ := result.Get(starlark.String("status"))
		if status != nil && !bool(status.Truth()) {
			all[i], _, _ = result.Get(starlark.String("stdout"))
			continue
		}
		command, _ := starlark.AsString(commands[i])
		failed = append(failed, fmt.Sprintf("`%s` (exit code %v)", command, status))
	}
	switch len(failed) {
	case 0:
		return starlark.NewList(all), nil
	case 1:
		return nil, assertion("command failed: " + failed[0])
	}
	return nil, assertion("commands failed: " + strings.Join(failed, ", "))
}

// qmpLook is how long one call for the next event takes at most, so that
// polling conditions are checked in between.
const qmpLook = time.Second

func waitForQMPEvent(r *runtime, thread *starlark.Thread, m *machineValue, f symbols.Function, a arguments) (starlark.Value, error) {
	limit, _ := a.seconds("timeout")
	start := time.Now()
	for {
		if err := r.beforeCommand(thread, f); err != nil {
			return nil, err
		}
		left := limit - time.Since(start).Seconds()
		if left <= 0 {
			return nil, &scriptError{name: "TimeoutError", kind: script.KindException,
				err: fmt.Errorf("machine %q: no such QMP event within %v seconds", m.info.Name, limit)}
		}
		result, err := r.call(thread, m.info.Name, "qmp_next_event", map[string]any{"timeout": min(left, qmpLook.Seconds())})
		if err != nil {
			return nil, err
		}
		found, err := toStarlark(result, symbols.Attrs)
		if err != nil || found == starlark.None {
			if err != nil {
				return nil, err
			}
			continue
		}
		is, err := starlark.Call(thread, a.function("event_filter"), starlark.Tuple{found}, nil)
		if err != nil || bool(is.Truth()) {
			return found, err
		}
	}
}

// vlanValue is a VLAN of the script.
type vlanValue struct {
	r      *runtime
	number int
}

var _ starlark.HasAttrs = (*vlanValue)(nil)

func (v *vlanValue) String() string        { return fmt.Sprintf("<Vlan Nr. %d>", v.number) }
func (v *vlanValue) Type() string          { return "VLan" }
func (v *vlanValue) Freeze()               {}
func (v *vlanValue) Truth() starlark.Bool  { return true }
func (v *vlanValue) Hash() (uint32, error) { return uint32(v.number), nil }
func (v *vlanValue) AttrNames() []string   { return names(v.Type()) }

// Attr returns a method, or an attribute.
func (v *vlanValue) Attr(name string) (starlark.Value, error) {
	if name == "nr" {
		return starlark.MakeInt(v.number), nil
	}
	return attribute(v.r, v, v.Type(), name, nil, vlanCall), nil
}

func vlanCall(r *runtime, thread *starlark.Thread, v *vlanValue, f symbols.Function, a arguments) (starlark.Value, error) {
	args, err := a.wire(f)
	if err != nil {
		return nil, err
	}
	args["vlan"] = v.number
	result, err := r.call(thread, "", "vlan_"+f.Name, args)
	if err != nil || f.Result == symbols.None {
		return starlark.None, err
	}
	return toStarlark(result, f.Result)
}
