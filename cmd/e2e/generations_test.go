package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The command lines and environments of all releases' wrappers boot the same
// machine: before 25.11, between, and from 26.05 on.
func TestGenerations(t *testing.T) {
	c := configOf(t, "vm-help")
	machine := c["vms"].(map[string]any)["machine"].(map[string]any)
	startScript := machine["start_script"].(string)
	dir := t.TempDir()
	script := filepath.Join(dir, "script.py")
	text := "machine.succeed('true')\nprint('ran', vlan1.nr)\n"
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		env  []string
		args []string
	}{
		{
			"25.05",
			[]string{"startScripts=" + startScript, "vlans=1", "testScript=" + script, "globalTimeout=600"},
			[]string{"--debug-hook=/nix/store/none"},
		},
		{
			"25.11",
			[]string{"vmNames=machine", "vmStartScripts=" + startScript, "containerNames=", "containerStartScripts=", "vlans=1", "testScript=/not/this"},
			[]string{"--log-level", "warning", "--script", script},
		},
		{
			"flags",
			nil,
			[]string{"--start-scripts", startScript, "--vlans", "1", "--global-timeout", "600", script},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			runtimeDir, err := os.MkdirTemp("", "e2e")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(runtimeDir) })
			cmd := exec.CommandContext(t.Context(), tool(t, "nixos-test-driver"), append([]string{"-o", dir}, test.args...)...)
			cmd.Env = append(append(os.Environ(), "XDG_RUNTIME_DIR="+runtimeDir), test.env...)
			var log strings.Builder
			cmd.Stderr = &log
			out, err := cmd.Output()
			if err != nil || !strings.Contains(string(out), "\nran 1\n") {
				t.Errorf("%v\n%s\n%s", err, out, &log)
			}
		})
	}
}
