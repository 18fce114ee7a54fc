package startcommand_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vm-prebuild/testrun/startcommand"
)

// What saving and restoring append, and that the disk is named.
func TestState(t *testing.T) {
	const ram = "memory-backend-file,id=vm-prebuild-ram,size=7,mem-path=/c/ram,share="
	for _, test := range []struct {
		script string
		state  startcommand.State
		want   string // the last arguments
		never  string
	}{
		{"qemu-system-x86_64", startcommand.State{}, "", "vmgenid"},
		{"qemu-system-x86_64", startcommand.State{Paused: true}, "-S -device vmgenid,guid=auto", "-object"},
		{"qemu-system-x86_64", startcommand.State{RAM: "/c/ram", MemoryBytes: 7},
			"-object " + ram + "on -machine memory-backend=vm-prebuild-ram -device vmgenid,guid=auto", "-incoming"},
		{"qemu-system-x86_64", startcommand.State{RAM: "/c/ram", MemoryBytes: 7, Reads: true, Incoming: true, Disk: "/d"},
			"-object " + ram + "off -machine memory-backend=vm-prebuild-ram -device vmgenid,guid=auto -incoming defer", "-S"},
		{"qemu-system-x86_64 -device vmgenid,guid=1", startcommand.State{Paused: true}, "-S", "guid=auto"},
		{"qemu-system-x86_64 -M microvm", startcommand.State{Paused: true}, "-S", "vmgenid,"},
		{"qemu-system-aarch64", startcommand.State{Paused: true}, "-S", "vmgenid"},
	} {
		script := filepath.Join(t.TempDir(), "run-a-vm")
		if err := os.WriteFile(script, []byte("#!/bin/sh\n"+test.script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd, err := startcommand.Command{Script: script}.Build(nil, startcommand.Options{State: test.state})
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(cmd.Args, " ")
		if !strings.HasSuffix(got, test.want) || strings.Contains(got, test.never) {
			t.Errorf("%s, %+v: %q, want … %q", test.script, test.state, got, test.want)
		}
		if slices.Contains(cmd.Env, "NIX_DISK_IMAGE=/d") != (test.state.Disk != "") {
			t.Errorf("%+v: environment %q", test.state, cmd.Env)
		}
	}
}

func TestProgram(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "qemu-real"), filepath.Join(dir, "qemu-system-x86_64")
	if err := os.WriteFile(real, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("qemu-real", link); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"exec " + link + " -m 1":             real,
		"exec '" + link + "'":                "",
		link + "\\\n -m":                     "",
		"qemu-system-none -m 1":              "",
		"x=1 " + dir + "/not-qemu-at-all -m": "",
	} {
		if got := (startcommand.Command{Line: line}).Program(); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}
