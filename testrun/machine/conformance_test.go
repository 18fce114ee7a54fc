package machine_test

import (
	"os"
	"path/filepath"
	"testing"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/machine/machinetest"
)

func TestConformance(t *testing.T) {
	machinetest.Run(t, func(t *testing.T) *machine.Guest {
		g, f, _ := newGuest(t)
		for name, text := range map[string]string{
			"systemctl":         systemctl,
			"multi-user.target": "active\n",
			"no-such.service":   "inactive\n",
		} {
			if err := os.WriteFile(filepath.Join(f.path, name), []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return g
	})
}
