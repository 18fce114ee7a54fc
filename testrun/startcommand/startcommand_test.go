package startcommand_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vm-prebuild/testrun/startcommand"
)

func TestName(t *testing.T) {
	tests := []struct {
		command startcommand.Command
		want    string
	}{
		{startcommand.Command{Script: "/nix/store/x-nixos-vm/bin/run-web-server-vm"}, "web-server"},
		{startcommand.Command{Script: "/bin/run-vm"}, "machine"},
		{startcommand.Command{Script: "/bin/start"}, "machine"},
		{startcommand.Command{Line: "/x/run-db-vm -m 1024"}, "db"},
		{startcommand.Command{Line: "qemu-kvm -m 384"}, "machine"},
	}
	for _, test := range tests {
		if got := test.command.Name(); got != test.want {
			t.Errorf("%v: %q, want %q", test.command, got, test.want)
		}
	}
}

// printer is a start script that prints its arguments, one a line.
func printer(t *testing.T, extra string) startcommand.Command {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run-x-vm")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+extra+"\nfor a; do echo \"$a\"; done\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return startcommand.Command{Script: path}
}

func arguments(t *testing.T, c startcommand.Command, o startcommand.Options) []string {
	t.Helper()
	o.StateDir = t.TempDir()
	cmd, err := c.Build(os.Environ(), o)
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestBuild(t *testing.T) {
	script := printer(t, "")
	line := startcommand.Command{Line: script.Script + " -m 'two words'"}
	o := startcommand.Options{QMPSocket: "/s/qmp", ShellSocket: "/s/shell"}

	args := arguments(t, script, o)
	for _, want := range []string{"socket,id=qmp,path=/s/qmp", "socket,id=shell,path=/s/shell", "virtconsole,chardev=shell", "-no-reboot", "-nographic"} {
		if !slices.Contains(args, want) {
			t.Errorf("%q lacks %q", args, want)
		}
	}
	if slices.Contains(args, "accel=tcg") {
		t.Error("TCG without need")
	}
	// A command line is a shell's: its words come first, ours behind.
	if got := arguments(t, line, o); got[1] != "two words" || !slices.Equal(got[2:], args) {
		t.Errorf("%q", got)
	}

	o.AllowReboot, o.Display, o.ForceTCG = true, true, true
	args = arguments(t, script, o)
	if slices.Contains(args, "-no-reboot") || slices.Contains(args, "-nographic") {
		t.Errorf("%q", args)
	}
	if !slices.Contains(args, "accel=tcg") || slices.Contains(args, "-cpu") {
		t.Errorf("%q: want TCG and the script's own CPU", args)
	}
	if args = arguments(t, printer(t, "# -cpu host"), o); !slices.Contains(args, "max") {
		t.Errorf("%q: -cpu host exists under KVM only", args)
	}
	if args = arguments(t, printer(t, "# qemu -accel tcg,thread=single"), o); slices.Contains(args, "accel=tcg") {
		t.Errorf("%q: QEMU takes -accel or -machine accel=, not both", args)
	}
	if _, err := printer(t, "# qemu -accel kvm -m 1").Build(nil, o); err == nil || !strings.Contains(err.Error(), "-accel kvm, which nothing can override") {
		t.Errorf("error %v for a script that insists on KVM", err)
	}
}

func TestEnvironment(t *testing.T) {
	c := startcommand.Command{Line: "env;:"}
	env := []string{"PATH=" + os.Getenv("PATH"), "NIX_DISK_IMAGE=/d", "TMPDIR=/other"}
	state := t.TempDir()
	cmd, err := c.Build(env, startcommand.Options{StateDir: state, SharedDir: "/shared"})
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NIX_DISK_IMAGE=/d", "TMPDIR=" + state, "SHARED_DIR=/shared", "USE_TMPDIR=1", "PWD=" + state} {
		if !slices.Contains(strings.Split(string(out), "\n"), want) {
			t.Errorf("the environment lacks %s:\n%s", want, out)
		}
	}
	if len(env) != 3 || env[2] != "TMPDIR=/other" {
		t.Errorf("the caller's environment was changed: %q", env)
	}
}

func TestCheckOfALine(t *testing.T) {
	if err := (startcommand.Command{Line: "  "}).Check(); err == nil {
		t.Error("an empty command line was taken")
	}
}
