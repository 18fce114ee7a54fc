package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOperations runs every operation of a machine on both kinds of guests.
func TestOperations(t *testing.T) {
	script, err := os.ReadFile("testdata/operations.py")
	if err != nil {
		t.Fatal(err)
	}
	fixture := filepath.Join(t.TempDir(), "tree")
	for name, content := range map[string]string{"sub/file": "content\n", "program": "#!/bin/sh\necho it runs\n"} {
		file := filepath.Join(fixture, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("FIXTURE", fixture)
	for guest, from := range map[string]struct{ test, machine string }{
		"mini":    {"vm-help", "machine"},
		"systemd": {"vm-two-machines", "server"},
	} {
		t.Run(guest, func(t *testing.T) {
			c := configOf(t, from.test)
			vms := c["vms"].(map[string]any)
			c["vms"] = map[string]any{from.machine: vms[from.machine]}
			t.Setenv("START_COMMAND", vms[from.machine].(map[string]any)["start_script"].(string))
			r := start(t, c, string(script), "--junit-xml", "junit.xml")
			code, _ := r.end(3 * booting)
			if code != 0 {
				t.Errorf("exit code %d", code)
			}
			report, err := os.ReadFile(filepath.Join(r.out, "junit.xml"))
			if err != nil || !strings.Contains(string(report), `name="reboot"`) {
				t.Errorf("JUnit report: %v\n%s", err, report)
			}
			r.nothingLeft(0)
		})
	}
}
