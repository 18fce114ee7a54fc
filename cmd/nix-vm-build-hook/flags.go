package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"vm-prebuild/buildhook"
	"vm-prebuild/cmd/internal/cli"
)

// shared are the flags of all commands: status has to judge as the hook does.
type shared struct {
	Store  string `env:"VM_PREBUILD_HOOK_STORE" placeholder:"DIR" help:"Directory of the hook: stores to build in, the queue of tests, the log. Default: /var/lib/vm-prebuild/store for root, else ~/.local/state/vm-prebuild/store."`
	Memory string `env:"VM_PREBUILD_HOOK_MEMORY" placeholder:"SIZE" help:"Memory that the machines of all tests may have together: MiB, or with M or G. Default: four fifths of what this machine has, or its control group."`
	Cores  int    `env:"VM_PREBUILD_HOOK_CORES" placeholder:"N" help:"Virtual cores that they may have together. Default: as many as the processor has, or the control group; then a test with more runs alone."`
}

// dir is the hook's directory.
func (s shared) dir() (string, error) {
	if s.Store != "" {
		return filepath.Abs(s.Store)
	}
	if os.Geteuid() == 0 {
		return "/var/lib/vm-prebuild/store", nil
	}
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", cli.Usagef("no directory for builds: %w\nhint: name one with --store", err)
		}
		state = filepath.Join(home, ".local/state")
	}
	return filepath.Join(state, "vm-prebuild/store"), nil
}

var size = regexp.MustCompile(`^([0-9]{1,9})([MmGg]?)i?[Bb]?$`)

// budget is what the flags say of it.
func (s shared) budget() (b buildhook.Budget, err error) {
	if s.Cores < 0 {
		return b, cli.Usagef("--cores must not be negative")
	}
	b.Cores = s.Cores
	if s.Memory == "" {
		return b, nil
	}
	m := size.FindStringSubmatch(s.Memory)
	if m == nil {
		return b, cli.Usagef("--memory: %q is not a size\nhint: give MiB, as in 8192, or say 8G", s.Memory)
	}
	if b.MemoryMiB, err = strconv.Atoi(m[1]); err != nil {
		return b, cli.Usagef("--memory: %w", err)
	}
	if m[2] == "G" || m[2] == "g" {
		b.MemoryMiB *= 1024
	}
	if b.MemoryMiB == 0 {
		return b, cli.Usagef("--memory: tests need some")
	}
	return b, nil
}
