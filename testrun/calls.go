package testrun

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
	"vm-prebuild/testrun/startcommand"
)

// Call implements script.Caller.
func (d *driver) Call(ctx context.Context, r script.Request) (any, error) {
	if r.Machine == "" {
		call, ok := driverCalls[r.Method]
		if !ok {
			return nil, fmt.Errorf("the driver has no operation %q", r.Method)
		}
		return call(ctx, d, r)
	}
	call, ok := machineCalls[r.Method]
	if !ok {
		return nil, fmt.Errorf("machines have no operation %q", r.Method)
	}
	m, err := d.machine(r.Machine)
	if err != nil {
		return nil, err
	}
	return call(ctx, d.guest(m, r.Env), r)
}

// duration is an optional number of seconds.
type duration struct {
	Seconds *float64
}

func (t *duration) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &t.Seconds)
}

// or returns the duration, or otherwise where the script gave none.
func (t duration) or(otherwise time.Duration) time.Duration {
	if t.Seconds == nil {
		return otherwise
	}
	return time.Duration(min(max(*t.Seconds, 0), maxSeconds) * float64(time.Second))
}

// none stands for a result that a script does not see.
var none any

// driverCalls are the operations of the test itself.
var driverCalls = map[string]func(context.Context, *driver, script.Request) (any, error){
	"start_all": func(ctx context.Context, d *driver, r script.Request) (any, error) {
		return none, d.bus.Nested("", "start all VMs", func() error {
			return d.eachConfigured(func(m machine.Machine) error {
				return m.Start(ctx, d.guest(m, r.Env).Boot)
			})
		})
	},
	"join_all": func(ctx context.Context, d *driver, r script.Request) (any, error) {
		return none, d.bus.Nested("", "wait for all VMs to finish", func() error {
			err := d.eachConfigured(func(m machine.Machine) error {
				return d.guest(m, r.Env).WaitForShutdown(ctx)
			})
			d.stopTimer()
			return err
		})
	},
	"create_machine": func(_ context.Context, d *driver, r script.Request) (any, error) {
		var a struct {
			StartCommand string `json:"start_command"`
			Name         string `json:"name"`
			Keep         bool   `json:"keep_machine_state"`
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		command := startcommand.Command{Line: a.StartCommand}
		if err := command.Check(); err != nil {
			return nil, err
		}
		if a.Name == "" {
			a.Name = command.Name()
		}
		m, err := d.addMachine(a.Name, command, a.Keep)
		if err != nil {
			return nil, err
		}
		return info(m), nil
	},
	"serial_stdout": func(_ context.Context, d *driver, r script.Request) (any, error) {
		var a struct {
			On bool `json:"on"`
		}
		err := r.Decode(&a)
		if err == nil {
			d.serial.Store(a.On)
		}
		return none, err
	},
}

// eachConfigured calls f for every machine of the test at once.
func (d *driver) eachConfigured(f func(machine.Machine) error) error {
	var wg sync.WaitGroup
	failed := make([]error, len(d.cfg.Machines))
	for i, m := range d.cfg.Machines {
		wg.Go(func() {
			m, err := d.machine(m.Name)
			if err == nil {
				err = f(m)
			}
			failed[i] = err
		})
	}
	wg.Wait()
	return errors.Join(failed...)
}

// machineCalls are the operations of a machine. Their arguments have the names
// that they have in nixpkgs' Python driver.
var machineCalls = map[string]machineCall{
	"start": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct {
			AllowReboot bool `json:"allow_reboot"`
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		o := g.Boot
		o.AllowReboot = a.AllowReboot
		return none, g.Machine.Start(ctx, o)
	},
	"connect": func(ctx context.Context, g *machine.Guest, _ script.Request) (any, error) {
		_, err := g.Shell(ctx)
		return none, err
	},
	"shutdown":          plain((*machine.Guest).Shutdown),
	"wait_for_shutdown": plain((*machine.Guest).WaitForShutdown),
	"crash":             plain((*machine.Guest).Crash),
	"reboot":            plain((*machine.Guest).Reboot),
	"release": func(_ context.Context, g *machine.Guest, _ script.Request) (any, error) {
		return none, g.Machine.Release()
	},
	"block": func(ctx context.Context, g *machine.Guest, _ script.Request) (any, error) {
		return none, g.SetLinks(ctx, false)
	},
	"unblock": func(ctx context.Context, g *machine.Guest, _ script.Request) (any, error) {
		return none, g.SetLinks(ctx, true)
	},
	"is_up": func(_ context.Context, g *machine.Guest, _ script.Request) (any, error) {
		return g.Up(), nil
	},
	"get_attribute": func(_ context.Context, g *machine.Guest, r script.Request) (any, error) {
		a, err := attributeArgs(r)
		if err != nil {
			return nil, err
		}
		switch a.Name {
		case "booted":
			return g.Machine.Running(), nil
		case "connected":
			return g.Connected(), nil
		}
		return nil, fmt.Errorf("machine %q: attribute %q cannot be read", g.Machine.Name(), a.Name)
	},
	"set_attribute": func(_ context.Context, g *machine.Guest, r script.Request) (any, error) {
		a, err := attributeArgs(r)
		if err != nil {
			return nil, err
		}
		if a.Name == "connected" && string(a.Value) == "false" {
			return none, g.Disconnect()
		}
		return nil, fmt.Errorf("machine %q: attribute %q cannot be set to %s", g.Machine.Name(), a.Name, a.Value)
	},
	"get_console_log": func(_ context.Context, g *machine.Guest, _ script.Request) (any, error) {
		return strings.Join(g.Machine.Console(), "\n"), nil
	},
	"execute": execute,
	"succeed": commands((*machine.Guest).Succeed),
	"fail":    commands((*machine.Guest).Fail),

	"wait_until_succeeds":  waitCommand((*machine.Guest).WaitUntilSucceeds),
	"wait_until_fails":     waitCommand((*machine.Guest).WaitUntilFails),
	"wait_for_open_port":   waitPort((*machine.Guest).WaitForOpenPort),
	"wait_for_closed_port": waitPort((*machine.Guest).WaitForClosedPort),
	"wait_for_file": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct {
			Filename string   `json:"filename"`
			Timeout  duration `json:"timeout"`
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return none, g.WaitForFile(ctx, a.Filename, a.Timeout.or(machine.DefaultTimeout))
	},
	"sleep": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct {
			Duration duration `json:"duration"`
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return none, g.Sleep(ctx, a.Duration.or(0))
	},

	"wait_for_unit": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		a, err := unitArgs(r)
		if err != nil {
			return nil, err
		}
		return none, g.WaitForUnit(ctx, a.Unit, a.User, a.Timeout.or(machine.DefaultTimeout))
	},
	"get_unit_info": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		a, err := unitArgs(r)
		if err != nil {
			return nil, err
		}
		return g.UnitInfo(ctx, a.Unit, a.User)
	},
	"get_unit_property": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		a, err := unitArgs(r)
		if err != nil {
			return nil, err
		}
		return g.UnitProperty(ctx, a.Unit, a.Property, a.User)
	},
	"require_unit_state": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		a, err := unitArgs(r)
		if err != nil {
			return nil, err
		}
		return none, g.RequireUnitState(ctx, a.Unit, a.RequireState)
	},
	"systemctl": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		a, err := unitArgs(r)
		if err != nil {
			return nil, err
		}
		return statusAndOutput(g.Systemctl(ctx, a.Query, a.User))
	},
	"start_job": job("start"),
	"stop_job":  job("stop"),

	"copy_from_host": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct{ Source, Target string }
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return none, g.CopyFromHost(ctx, r.Env.Dir, a.Source, a.Target)
	},
	"copy_from_machine": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct {
			Source    string `json:"source"`
			TargetDir string `json:"target_dir"`
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return none, g.CopyFromMachine(ctx, a.Source, a.TargetDir)
	},
	"screenshot": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct{ Filename string }
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return g.Screenshot(ctx, r.Env.Dir, a.Filename)
	},
	"send_monitor_command": func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct{ Command string }
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return g.MonitorCommand(ctx, a.Command)
	},
}

type machineCall = func(context.Context, *machine.Guest, script.Request) (any, error)

func plain(f func(*machine.Guest, context.Context) error) machineCall {
	return func(ctx context.Context, g *machine.Guest, _ script.Request) (any, error) {
		return none, f(g, ctx)
	}
}

func commands(f func(*machine.Guest, context.Context, []string, time.Duration) (string, error)) machineCall {
	return func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct {
			Commands []string
			Timeout  duration
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return f(g, ctx, a.Commands, a.Timeout.or(0))
	}
}

func waitCommand(f func(*machine.Guest, context.Context, string, time.Duration) (string, error)) machineCall {
	return func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct {
			Command string
			Timeout duration
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return f(g, ctx, a.Command, a.Timeout.or(machine.DefaultTimeout))
	}
}

func waitPort(f func(*machine.Guest, context.Context, string, int, time.Duration) error) machineCall {
	return func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		a := struct {
			Port    int
			Addr    string
			Timeout duration
		}{Addr: "localhost"}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return none, f(g, ctx, a.Addr, a.Port, a.Timeout.or(machine.DefaultTimeout))
	}
}

// execute returns [status, output], with the stand-ins of nixpkgs' driver for
// what the script did not want: -1 for the status, (-2, "") for both.
func execute(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
	a := struct {
		Command     string
		CheckReturn bool `json:"check_return"`
		CheckOutput bool `json:"check_output"`
		Timeout     duration
	}{CheckReturn: true, CheckOutput: true}
	if err := r.Decode(&a); err != nil {
		return nil, err
	}
	status, output, err := g.Execute(ctx, a.Command, a.Timeout.or(0), a.CheckOutput)
	switch {
	case err != nil:
		return nil, err
	case !a.CheckOutput:
		status = -2
	case !a.CheckReturn:
		status = -1
	}
	return []any{status, strings.ToValidUTF8(string(output), "\uFFFD")}, nil
}

func statusAndOutput(status int, output string, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return []any{status, output}, nil
}

// job starts or stops a unit, without looking at the result.
func job(verb string) machineCall {
	return func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct{ Job, User string }
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return statusAndOutput(g.Systemctl(ctx, verb+" "+a.Job, a.User))
	}
}

type attribute struct {
	Name  string
	Value json.RawMessage
}

func attributeArgs(r script.Request) (attribute, error) {
	var a attribute
	err := r.Decode(&a)
	return a, err
}

type unit struct {
	Unit, User, Property string
	RequireState         string `json:"require_state"`
	Query                string `json:"q"`
	Timeout              duration
}

func unitArgs(r script.Request) (unit, error) {
	a := unit{RequireState: "active"}
	err := r.Decode(&a)
	return a, err
}
