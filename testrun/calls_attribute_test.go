package testrun

import (
	"encoding/json"
	"strings"
	"testing"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
)

// process is a fake that has a process and directories.
type process struct {
	fake
	dirs machine.Dirs
}

func (p *process) PID() int                  { return map[bool]int{true: 42}[p.running] }
func (p *process) LastPID() int              { return 42 }
func (p *process) Dirs() machine.Dirs        { return p.dirs }
func (p *process) SetDirs(dirs machine.Dirs) { p.dirs = dirs }

func TestAttributes(t *testing.T) {
	m := &process{fake: fake{running: true, connected: true}, dirs: machine.Dirs{State: "/s", Shared: "/x", Out: "/o"}}
	d := &driver{bus: event.NewBus(), machines: map[string]machine.Machine{"m": m, "plain": &fake{}}}
	call := func(name, method, args string) string {
		t.Helper()
		result, err := d.Call(t.Context(), script.Request{Machine: name, Method: method, Args: json.RawMessage(args)})
		if err != nil {
			return err.Error()
		}
		text, err := json.Marshal(result)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for _, tc := range []struct{ machine, method, args, want string }{
		{"m", "get_attribute", `{"name":"booted"}`, "true"},
		{"m", "get_attribute", `{"name":"connected"}`, "true"},
		{"m", "get_attribute", `{"name":"pid"}`, "42"},
		{"m", "get_attribute", `{"name":"last_pid"}`, "42"},
		{"plain", "get_attribute", `{"name":"last_pid"}`, "null"},
		{"m", "get_attribute", `{"name":"returncode"}`, "null"},
		{"plain", "get_attribute", `{"name":"pid"}`, "null"},
		{"plain", "get_attribute", `{"name":"returncode"}`, "0"},
		{"m", "get_attribute", `{"name":"colour"}`, `attribute "colour" cannot be read`},
		{"m", "set_attribute", `{"name":"connected","value":true}`, "null"},
		{"m", "set_attribute", `{"name":"connected","value":false}`, "null"},
		{"m", "get_attribute", `{"name":"connected"}`, "false"},
		{"m", "set_attribute", `{"name":"booted","value":false}`, "null"},
		{"m", "set_attribute", `{"name":"out_dir","value":"/o2"}`, "null"},
		{"m", "set_attribute", `{"name":"state_dir","value":"/s2"}`, "null"},
		{"m", "set_attribute", `{"name":"shared_dir","value":"/x2"}`, "null"},
		{"m", "set_attribute", `{"name":"out_dir","value":7}`, "cannot unmarshal number"},
		{"m", "set_attribute", `{"name":"colour","value":"red"}`, `attribute "colour" cannot be set`},
		{"plain", "set_attribute", `{"name":"out_dir","value":"/o"}`, `attribute "out_dir" cannot be set`},
	} {
		if got := call(tc.machine, tc.method, tc.args); !strings.Contains(got, tc.want) {
			t.Errorf("%s.%s %s: got %s, want %s", tc.machine, tc.method, tc.args, got, tc.want)
		}
	}
	if want := (machine.Dirs{State: "/s2", Shared: "/x2", Out: "/o2"}); m.dirs != want {
		t.Errorf("directories %v, want %v", m.dirs, want)
	}
}
