package buildhook

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"vm-prebuild/storedb/mountns"
)

// nixProgram is a program of the Nix that has started us, unless another was named.
func (h *hook) nixProgram(name string) (string, error) {
	dir := h.Nix
	if dir == "" {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", os.Getppid()))
		if err == nil && strings.HasPrefix(filepath.Base(exe), "nix") {
			dir = filepath.Dir(exe)
		}
	}
	program := name
	if dir != "" {
		program = filepath.Join(dir, name)
	}
	found, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("find Nix: %w\nhint: --nix names the directory with nix and nix-store", err)
	}
	return found, nil
}

// ownHook is the command of Nix's own build hook. Until 2.9 it had a name of its own.
func (h *hook) ownHook() ([]string, error) {
	nix, err := h.nixProgram("nix")
	if err != nil {
		return nil, err
	}
	named := filepath.Join(filepath.Dir(nix), "../libexec/nix/build-remote")
	if _, err := os.Stat(named); err == nil {
		return []string{named}, nil
	}
	return []string{nix, "__build-remote"}, nil
}

// passedOn are the settings that say how Nix builds, as far as the version knows
// them. What is not among them has no influence on a build, or is set here.
var passedOn = []string{
	"system", "extra-platforms", "cores", "build-users-group", "experimental-features",
	"sandbox-build-dir", "sandbox-dev-shm-size", "allowed-impure-host-deps", "pre-build-hook",
	"filter-syscalls", "allow-new-privileges", "impersonate-linux-26", "require-drop-supplementary-groups",
	"auto-allocate-uids", "start-id", "id-count", "use-cgroups",
	"keep-failed", "build-dir", "ignored-acls", "log-lines",
}

// config is the NIX_CONFIG of the Nix that builds.
func (h *hook) config(features, sandboxPaths []string) (string, error) {
	var b strings.Builder
	set := func(name, value string) error {
		if strings.ContainsAny(value, "\n#") {
			return fmt.Errorf("Nix's setting %s has a character that cannot be passed on: %q", name, value) //nolint:revive,staticcheck // a name
		}
		_, _ = fmt.Fprintf(&b, "%s = %s\n", name, value) // it never fails
		return nil
	}
	for _, name := range passedOn {
		value, known := h.settings[name]
		if !known || value == "" && name != "build-users-group" {
			continue
		}
		if err := set(name, value); err != nil {
			return "", err
		}
	}
	for _, own := range [][2]string{
		{"system-features", strings.Join(features, " ")},
		{"sandbox", "true"},
		{"sandbox-fallback", "false"},
		{"sandbox-paths", strings.Join(sandboxPaths, " ")},
		{"extra-sandbox-paths", ""},
		// Only this build, and nothing from elsewhere.
		{"max-jobs", "1"}, {"substitute", "false"}, {"substituters", ""}, {"builders", ""},
		{"post-build-hook", ""}, {"keep-build-log", "false"}, {"auto-optimise-store", "false"},
		{"fsync-metadata", "false"}, {"min-free", "0"},
	} {
		if err := set(own[0], own[1]); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// environment is what the Nix that builds in the store below root has in its
// environment. It is told where its own state is, but if it builds as other users:
// which of these are free is known from locks in the state of the machine's Nix, and
// all builds must look there.
func (h *hook) environment(config string) func(root string, env []string) map[string]string {
	return func(root string, _ []string) map[string]string {
		vars := mountns.Environment(root, nil)
		vars["NIX_CONFIG"] = config
		if h.settings["build-users-group"] != "" || h.settings["auto-allocate-uids"] == "true" {
			delete(vars, "NIX_STATE_DIR")
		}
		return vars
	}
}

// cleanEnvironment is ours without what only concerns the Nix that has started us.
func cleanEnvironment() []string {
	var env []string
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if name == "NIX_STATE_DIR" || !strings.HasPrefix(name, "NIX_") && !strings.HasPrefix(name, "_NIX_") && name != "IN_SYSTEMD" {
			env = append(env, variable)
		}
	}
	return env
}
