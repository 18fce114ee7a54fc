package starlark

import (
	"fmt"

	"go.starlark.net/starlark"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/script/symbols"
)

// logValue is the global log.
type logValue struct{ r *runtime }

var _ starlark.HasAttrs = logValue{}

func (l logValue) String() string        { return "<log>" }
func (l logValue) Type() string          { return "AbstractLogger" }
func (l logValue) Freeze()               {}
func (l logValue) Truth() starlark.Bool  { return true }
func (l logValue) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: %s", l.Type()) }
func (l logValue) AttrNames() []string   { return names(l.Type()) }

// Attr returns a method.
func (l logValue) Attr(name string) (starlark.Value, error) {
	return attribute(l.r, l, l.Type(), name, nil, logCall), nil
}

func logCall(r *runtime, thread *starlark.Thread, _ logValue, f symbols.Function, a arguments) (starlark.Value, error) {
	attrs := attributesOf(a["attributes"])
	machine := attrs["machine"]
	delete(attrs, "machine")
	switch message := a.str("message"); f.Name {
	case "log":
		r.session.Bus.Say(machine, message)
	case "debug":
		r.session.Bus.Log(event.Debug, machine, message)
	case "info":
		r.session.Bus.Log(event.Info, machine, message)
	case "warning":
		r.session.Bus.Log(event.Warning, machine, message)
	case "error":
		r.session.Bus.Log(event.Error, machine, message)
		return nil, &exitError{code: 1}
	case "nested":
		return r.nested(thread, event.BlockOpen{Machine: machine, Text: message, Attrs: attrs}, a.function("fn"))
	case "subtest":
		return r.subtest(thread, a.str("name"), a.function("fn"), false)
	}
	return starlark.None, nil
}

// attributesOf returns a dict as attributes of the XML log.
func attributesOf(v starlark.Value) map[string]string {
	d, ok := v.(*starlark.Dict)
	if !ok {
		return nil
	}
	attrs := map[string]string{}
	for _, item := range d.Items() {
		attrs[text(item[0])] = text(item[1])
	}
	return attrs
}

// text is v as print prints it.
func text(v starlark.Value) string {
	if s, ok := starlark.AsString(v); ok {
		return s
	}
	return v.String()
}

// nested calls fn inside a block of the log and returns its result.
func (r *runtime) nested(thread *starlark.Thread, open event.BlockOpen, fn starlark.Callable) (starlark.Value, error) {
	block := r.session.Bus.Open(open)
	v, err := starlark.Call(thread, fn, nil, nil)
	if err != nil {
		block.Close(reason(err))
		return nil, err
	}
	block.Close("")
	return v, nil
}
