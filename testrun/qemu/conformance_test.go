package qemu_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/machine/machinetest"
	"vm-prebuild/testrun/suite"
	"vm-prebuild/testrun/vlan"
)

// manifestEnv names the manifest of the prebuilt example tests, whose guests
// are used here. "make e2e" sets it.
const manifestEnv = "VM_PREBUILD_MANIFEST"

// startScript returns the start script of a machine of a prebuilt test.
func startScript(t *testing.T, test, name string) string {
	t.Helper()
	file := os.Getenv(manifestEnv)
	if file == "" {
		t.Skipf("%s is not set; make e2e does", manifestEnv)
	}
	m, err := suite.ReadManifest(file)
	if err != nil {
		t.Fatal(err)
	}
	wrapper, err := os.ReadFile(m.Tests[test].Driver)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(string(regexp.MustCompile(`/nix/store/[^ '"]*\.json`).Find(wrapper)))
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		VMs map[string]struct {
			StartScript string `json:"start_script"`
		} `json:"vms"`
	}
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	script := config.VMs[name].StartScript
	if script == "" {
		t.Fatalf("test %s has no machine %s", test, name)
	}
	return script
}

// guests are the kinds of guests that nix/offline makes.
var guests = map[string]struct{ test, machine string }{
	"mini":    {"vm-help", "machine"},
	"systemd": {"vm-two-machines", "server"},
}

// prebuilt returns a machine with one of the guests, which has not been
// started.
func prebuilt(t *testing.T, guest string) *machine.Guest {
	t.Helper()
	from := guests[guest]
	script := startScript(t, from.test, from.machine)
	_, g := newGuest(t, "exec "+script+` "$@"`, 5*time.Minute)
	v, err := vlan.Start(1, filepath.Join(g.Machine.Dirs().Shared, "../vde1.ctl"), vlan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = g.Machine.Release()
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	g.Boot.Env = append(os.Environ(), "QEMU_VDE_SOCKET_1="+v.Dir())
	return g
}

func TestConformance(t *testing.T) {
	for name := range guests {
		t.Run(name, func(t *testing.T) {
			machinetest.Run(t, func(t *testing.T) *machine.Guest { return prebuilt(t, name) })
		})
	}
}
