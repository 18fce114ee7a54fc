package testrun

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
)

// answering is a machine whose guest answers every command in the same way.
type answering struct {
	fake
	name   string
	result machine.Result
	err    error
}

func (a *answering) Name() string                                 { return a.name }
func (a *answering) Console() []string                            { return nil }
func (a *answering) Shell(context.Context) (machine.Shell, error) { return a, nil }
func (a *answering) Run(context.Context, string, time.Duration) (machine.Result, error) {
	return a.result, a.err
}

func answeringDriver(machines ...*answering) *driver {
	d := &driver{bus: event.NewBus(), machines: map[string]machine.Machine{}}
	for _, m := range machines {
		d.machines[m.name] = m
		d.cfg.Machines = append(d.cfg.Machines, MachineConfig{Name: m.name})
	}
	return d
}

func TestSucceedAll(t *testing.T) {
	good := &answering{name: "good", result: machine.Result{Stdout: []byte("fine\n")}}
	bad := &answering{name: "bad", result: machine.Result{Status: 4}}
	worse := &answering{name: "worse", result: machine.Result{Status: 5}}
	gone := &answering{name: "gone", err: errors.New("its QEMU has died")}
	d := answeringDriver(good, bad, worse, gone)
	for _, tc := range []struct {
		args string
		want string // the result as JSON, or lines of the error
		kind script.Kind
	}{
		{`{"machines": ["good"], "command": "x"}`, `{"good":"fine\n"}`, ""},
		{`{"machines": [], "command": "x"}`, `{}`, ""},
		{`{"machines": ["good", "worse", "bad"], "command": "x"}`,
			"machine \"bad\": command `x` failed (exit code 4)\nmachine \"worse\": command `x` failed (exit code 5)", script.KindAssertion},
		{`{"machines": null, "command": "x"}`,
			"machine \"bad\": command `x` failed (exit code 4)\nmachine \"gone\": its QEMU has died\nmachine \"worse\": command `x` failed (exit code 5)", script.KindMachine},
		{`{"machines": ["good", "nobody"], "command": "x"}`, `there is no machine named "nobody"`, script.KindMachine},
		{`{"command": 1}`, "succeed_all(): argument command cannot be of type number", "type"},
	} {
		result, err := d.Call(t.Context(), script.Request{Method: "succeed_all", Args: json.RawMessage(tc.args)})
		if err != nil {
			if kind := script.KindOf(err); !strings.Contains(err.Error(), tc.want) || kind != tc.kind {
				t.Errorf("%s: %s error %v", tc.args, kind, err)
			}
			continue
		}
		text, err := json.Marshal(result)
		if err != nil || string(text) != tc.want {
			t.Errorf("%s: %s %v", tc.args, text, err)
		}
	}
}

func TestRunAndParallel(t *testing.T) {
	d := answeringDriver(
		&answering{name: "one", result: machine.Result{Status: 3, Stdout: []byte("a\xff"), Stderr: []byte("why")}},
		&answering{name: "two", result: machine.Result{Stdout: []byte("0 1 2\nabc1 0 0\n")}},
	)
	for _, tc := range []struct{ machine, method, args, want string }{
		{"one", "run", `{"command": "x", "timeout": null}`, `{"status":3,"stdout":"a` + "\uFFFD" + `","stderr":"why"}`},
		{"two", "parallel", `{"commands": ["x", "y"], "timeout": 5}`,
			`[{"status":0,"stdout":"a","stderr":"bc"},{"status":1,"stdout":"","stderr":""}]`},
	} {
		result, err := d.Call(t.Context(), script.Request{Machine: tc.machine, Method: tc.method, Args: json.RawMessage(tc.args)})
		if err != nil {
			t.Errorf("%s: %v", tc.method, err)
			continue
		}
		if text, err := json.Marshal(result); err != nil || string(text) != tc.want {
			t.Errorf("%s: %s %v", tc.method, text, err)
		}
	}
}
