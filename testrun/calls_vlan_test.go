package testrun

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/reaper"
	"vm-prebuild/testrun/script"
	"vm-prebuild/testrun/vlan"
)

// recorder keeps the events of a bus.
type recorder struct{ events []event.Event }

func (r *recorder) Handle(e event.Record) { r.events = append(r.events, e.Event) }
func (r *recorder) Close() error          { return nil }

// log is what was logged, a line each.
func (r *recorder) log() string {
	var b strings.Builder
	for _, e := range r.events {
		if l, ok := e.(event.Log); ok {
			fmt.Fprintln(&b, l.Text)
		}
	}
	return b.String()
}

// driverWithVLAN has machines a and b, which do not run, and VLAN 1.
func driverWithVLAN(t *testing.T) (*driver, *recorder) {
	t.Helper()
	events := &recorder{}
	r, err := reaper.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	d := &driver{
		bus:      event.NewBus(events),
		reaper:   r,
		seed:     42,
		machines: map[string]machine.Machine{"a": &fake{}, "b": &fake{}},
		cfg:      Config{PCAPDir: "captures", OutDir: t.TempDir()},
	}
	s, err := d.startVLAN(t.Context(), 1, filepath.Join(runtimeDir(t), "vde1.ctl"))
	if err != nil {
		t.Fatal(err)
	}
	d.vlans = []vlan.Switch{s}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, events
}

func call(t *testing.T, d *driver, method, args string) (string, error) {
	t.Helper()
	result, err := d.Call(t.Context(), script.Request{Method: method, Args: json.RawMessage(args)})
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), nil
}

func TestVLANCalls(t *testing.T) {
	d, events := driverWithVLAN(t)
	for _, c := range []struct{ method, args, result string }{
		{"vlan_set_loss", `{"vlan": 1, "loss": 0.25}`, "null"},
		{"vlan_set_loss", `{"vlan": 1, "loss": 1, "machine": "a"}`, "null"},
		{"vlan_set_delay", `{"vlan": 1, "delay": 0.05}`, "null"},
		{"vlan_set_delay", `{"vlan": 1, "delay": 0.05, "jitter": 0.01, "machine": "b"}`, "null"},
		{"vlan_set_delay", `{"vlan": 1, "delay": 0, "jitter": null, "machine": null}`, "null"},
		{"vlan_partition", `{"vlan": 1, "groups": [["a"], ["b"]]}`, "null"},
		{"vlan_heal", `{"vlan": 1}`, "null"},
		{"vlan_stats", `{"vlan": 1}`, "[]"},
	} {
		if got, err := call(t, d, c.method, c.args); err != nil || got != c.result {
			t.Errorf("%s %s: got %s, %v", c.method, c.args, got, err)
		}
	}
	const want = `the faults of VLANs are repeated by VM_PREBUILD_SEED=42
VLAN 1: 25 % of the frames are lost
VLAN 1: 100 % of the frames are lost on the cable of a
VLAN 1: frames are delayed by 50ms ± 0s
VLAN 1: frames are delayed by 50ms ± 10ms on the cable of b
VLAN 1: frames are delayed by 0s ± 0s
VLAN 1: divided into [a] [b]
VLAN 1: no faults any more
`
	if got := events.log(); got != want {
		t.Errorf("logged\n%s\nwant\n%s", got, want)
	}
}

func TestWrongVLANCalls(t *testing.T) {
	d, events := driverWithVLAN(t)
	for _, c := range []struct{ method, args, want string }{
		{"vlan_heal", `{"vlan": 7}`, "vlan_heal: the test has no VLAN 7"},
		{"vlan_set_loss", `{"vlan": 1, "loss": 1.5}`, "vlan1.set_loss: loss is to be a number from 0 to 1"},
		{"vlan_set_loss", `{"vlan": 1, "loss": -0.5}`, "vlan1.set_loss: loss is to be"},
		{"vlan_set_loss", `{"vlan": 1}`, "vlan1.set_loss: loss is to be"},
		{"vlan_set_loss", `{"vlan": 1, "loss": 0.5, "machine": "x"}`, `vlan_set_loss: there is no machine named "x"`},
		{"vlan_set_delay", `{"vlan": 1, "delay": -1}`, "vlan1.set_delay: delay and jitter are to be"},
		{"vlan_set_delay", `{"vlan": 1, "delay": 1, "jitter": -1}`, "vlan1.set_delay: delay and jitter are to be"},
		{"vlan_set_delay", `{"vlan": 1, "jitter": 1}`, "vlan1.set_delay: delay and jitter are to be"},
		{"vlan_set_delay", `{"vlan": 1, "delay": 1, "machine": "x"}`, `there is no machine named "x"`},
		{"vlan_partition", `{"vlan": 1, "groups": [["a", "x"]]}`, `vlan_partition: there is no machine named "x"`},
		{"vlan_partition", `{"vlan": 1, "groups": [["a"], ["a", "b"]]}`, `vlan1.partition: machine "a" is in two groups`},
	} {
		_, err := call(t, d, c.method, c.args)
		if err == nil || !strings.Contains(err.Error(), c.want) || script.KindOf(err) != script.KindAssertion {
			t.Errorf("%s %s: got %v, want %s", c.method, c.args, err, c.want)
		}
	}
	if _, err := call(t, d, "vlan_stats", `{}`); err == nil || !strings.Contains(err.Error(), "does not say which VLAN") {
		t.Errorf("got %v", err)
	}
	if got := events.log(); got != "" {
		t.Errorf("logged\n%s", got)
	}
}

func TestVLANCallsNeedTheHub(t *testing.T) {
	if _, err := exec.LookPath("vde_switch"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	s, err := vlan.StartProcess(t.Context(), 1, filepath.Join(runtimeDir(t), "vde1.ctl"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	d := &driver{bus: event.NewBus(), vlans: []vlan.Switch{s}}
	for method := range vlanCalls {
		if _, err := call(t, d, method, `{"vlan": 1}`); err == nil || !strings.Contains(err.Error(), "VLAN 1 is a vde_switch: ") || !strings.Contains(err.Error(), "\nhint: ") {
			t.Errorf("%s: got %v", method, err)
		}
	}
	cfg := Config{PCAPDir: "captures", VLANBackend: VDESwitch}
	if err := cfg.check(); err == nil || !strings.Contains(err.Error(), "cannot be captured") {
		t.Errorf("got %v", err)
	}
}

func TestVLANReport(t *testing.T) {
	d, events := driverWithVLAN(t)
	if err := d.closeVLAN(d.vlans[0]); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(d.cfg.OutDir, "captures", "vlan1.pcapng")
	if len(events.events) != 1 || events.events[0] != (event.Artifact{Kind: "capture", Path: file}) {
		t.Errorf("got %+v", events.events)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestMachineOf(t *testing.T) {
	for name, script := range map[string]string{
		"by itself":       "echo $$; exec sleep 600",
		"by its script":   "env -i sleep 600 & echo $!; wait",
		"by its ancestor": "(sleep 600 & echo $!; wait)",
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("sh", "-c", script)
			cmd.Env = append(os.Environ(), machineEnv+"=a")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
				_ = cmd.Wait()
			}()
			var pid int
			if _, err := fmt.Fscan(out, &pid); err != nil {
				t.Fatal(err)
			}
			// For a moment, a process that calls exec has no environment.
			got := ""
			for end := time.Now().Add(5 * time.Second); got != "a" && time.Now().Before(end); time.Sleep(time.Millisecond) {
				got = machineOf(pid)
			}
			if got != "a" {
				t.Errorf("got %q", got)
			}
		})
	}
	if got := machineOf(os.Getpid()); got != "" {
		t.Errorf("we are machine %q", got)
	}
}

func TestFaultSeed(t *testing.T) {
	t.Setenv(seedEnv, "18446744073709551615")
	if seed, err := faultSeed(); err != nil || seed != 1<<64-1 {
		t.Errorf("got %d, %v", seed, err)
	}
	t.Setenv(seedEnv, "x")
	if _, err := faultSeed(); err == nil || !strings.Contains(err.Error(), "VM_PREBUILD_SEED=x: ") {
		t.Errorf("got %v", err)
	}
	t.Setenv(seedEnv, "")
	one, err := faultSeed()
	two, err2 := faultSeed()
	if one == two || err != nil || err2 != nil {
		t.Errorf("got %d, %d", one, two)
	}
}
