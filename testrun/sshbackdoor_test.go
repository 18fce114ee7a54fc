package testrun

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/report"
	"vm-prebuild/testrun/script"
	"vm-prebuild/testrun/startcommand"
)

// twoMachines is a test with machines "a" and "server".
func twoMachines(t *testing.T, startScriptText string) Config {
	t.Helper()
	dir := t.TempDir()
	cfg := Config{OutDir: dir}
	for _, name := range []string{"a", "server"} {
		path := startScript(t, dir, "run-"+name+"-vm")
		if err := os.WriteFile(path, []byte(startScriptText), 0o755); err != nil {
			t.Fatal(err)
		}
		cfg.Machines = append(cfg.Machines, MachineConfig{Name: name, Command: startcommand.Command{Script: path}})
	}
	return cfg
}

// driverOf is a driver of cfg, and its log.
func driverOf(t *testing.T, cfg Config) (*driver, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	bus := event.NewBus(report.NewTerminal(&log, event.Info, false, func() bool { return false }))
	d, err := newDriver(t.Context(), cfg, bus, watch{serial: new(atomic.Bool), blocks: new(openBlocks)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(d.close(), bus.Close()); err != nil {
			t.Error(err)
		}
	})
	return d, &log
}

func answer(t *testing.T, d *driver, machine, method, args string) string {
	t.Helper()
	result, err := d.Call(t.Context(), script.Request{Machine: machine, Method: method, Args: json.RawMessage(args)})
	if err != nil {
		t.Fatal(err)
	}
	return result.(string)
}

func TestSSHBackdoor(t *testing.T) {
	dir := runtimeDir(t)
	// A stand-in: Debian has no vhost-device-vsock.
	bin := t.TempDir()
	standIn := "#!/bin/sh\nfor a; do case $a in guest-cid=*) s=${a#*,socket=}; : >\"${s%%,*}\" ;; esac; done\nexec sleep 600\n"
	if err := os.WriteFile(filepath.Join(bin, "vhost-device-vsock"), []byte(standIn), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	cfg := twoMachines(t, "#!/bin/sh\necho \"$@\" >arguments\n")
	cfg.SSHBackdoor = true
	t.Cleanup(func() { // when the driver is closed
		if left, err := filepath.Glob(filepath.Join(dir, "vsock*")); err != nil || len(left) > 0 {
			t.Errorf("directories of sockets: %v %v", left, err)
		}
	})
	d, log := driverOf(t, cfg)

	sockets, err := filepath.Glob(filepath.Join(dir, "vsock*"))
	if err != nil || len(sockets) != 1 {
		t.Fatalf("directories of sockets: %v %v", sockets, err)
	}
	host := sockets[0] + "/server_host.socket"
	if got, want := answer(t, d, "server", "ssh_backdoor_command", "{}"), "ssh -o User=root vsock-mux/"+host; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	table := answer(t, d, "", "dump_machine_ssh", "{}")
	if !strings.Contains(table, "\n    a:       ssh -o User=root vsock-mux/") || !strings.HasSuffix(table, "\n    server:  ssh -o User=root vsock-mux/"+host) {
		t.Errorf("table\n%s", table)
	}
	// The start script gets QEMU's side of it, and ends at once.
	if _, err := d.Call(t.Context(), script.Request{Machine: "a", Method: "start", Args: json.RawMessage("{}")}); err == nil {
		t.Error("a start script that ends is a machine that runs")
	}
	arguments, err := os.ReadFile(filepath.Join(dir, "vm-state-a", "arguments"))
	if err != nil || !strings.Contains(string(arguments), "socket,id=vsock_ssh,path="+sockets[0]+"/a_guest.socket -device vhost-user-vsock-pci,chardev=vsock_ssh") {
		t.Errorf("%v: %s", err, arguments)
	}
	if _, err := d.Call(t.Context(), script.Request{Method: "create_machine", Args: json.RawMessage(`{"start_command": "run-x-vm"}`)}); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"start vhost-device-vsock", "x: the SSH backdoor does not reach"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log without %q:\n%s", want, log)
		}
	}
}

func TestSSHBackdoorWithoutProgram(t *testing.T) {
	runtimeDir(t)
	t.Setenv("PATH", t.TempDir())
	cfg := twoMachines(t, "#!/bin/sh\n")
	cfg.SSHBackdoor = true
	cfg.ScriptPath = cfg.Machines[0].Command.Script // never run
	var log bytes.Buffer
	err := Run(t.Context(), cfg, Options{Log: &log})
	var failed *RunError
	if !errors.As(err, &failed) || failed.ExitCode() != 3 || !strings.Contains(err.Error(), "SSH backdoor: ") || !strings.Contains(err.Error(), "\nhint: install vhost-device-vsock") {
		t.Error(err)
	}
}

// Before NixOS 26.05 the device is the kernel's, and start scripts name it.
func TestKernelBackdoor(t *testing.T) {
	runtimeDir(t)
	cfg := twoMachines(t, "#!/bin/sh\n")
	cfg.VSOCKOffset = 2
	d, _ := driverOf(t, cfg)
	if got := answer(t, d, "server", "ssh_backdoor_command", "{}"); got != "ssh -o User=root vsock/4" {
		t.Error(got)
	}
	if got := answer(t, d, "server", "ssh_backdoor_command", `{"index": 9}`); got != "ssh -o User=root vsock/9" {
		t.Error(got)
	}
	if got := answer(t, d, "", "dump_machine_ssh", "{}"); !strings.HasSuffix(got, "\n    a:       ssh -o User=root vsock/3\n    server:  ssh -o User=root vsock/4") {
		t.Error(got)
	}
}

func TestKernelBackdoorWithoutDevice(t *testing.T) {
	if unix.Access("/dev/vhost-vsock", unix.R_OK|unix.W_OK) == nil {
		t.Skip("/dev/vhost-vsock can be opened")
	}
	runtimeDir(t)
	cfg := twoMachines(t, "#!/bin/sh\nexec qemu -device vhost-vsock-pci,guest-cid=3\n")
	cfg.VSOCKOffset = 2
	cfg.ScriptPath = cfg.Machines[0].Command.Script
	var log bytes.Buffer
	err := Run(t.Context(), cfg, Options{Log: &log})
	if err == nil || !strings.Contains(err.Error(), `machine "a": its start script needs /dev/vhost-vsock`) || !strings.Contains(err.Error(), "\nhint: load the kernel module") {
		t.Error(err)
	}
}

func TestNoSSHBackdoor(t *testing.T) {
	runtimeDir(t)
	d, _ := driverOf(t, twoMachines(t, "#!/bin/sh\n"))
	if got := answer(t, d, "", "dump_machine_ssh", "{}"); got != "" {
		t.Errorf("table %q", got)
	}
	if got := answer(t, d, "", "dump_machine_ssh", `{"offset": 10}`); !strings.Contains(got, "    a:       ssh -o User=root vsock/11") {
		t.Errorf("table %q", got)
	}
	_, err := d.Call(t.Context(), script.Request{Machine: "a", Method: "ssh_backdoor_command"})
	if err == nil || !strings.Contains(err.Error(), `machine "a" has no SSH backdoor`) {
		t.Error(err)
	}
}
