package qemu_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"vm-prebuild/testrun/internal/guesttest"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/machine/machinetest"
	"vm-prebuild/testrun/vlan"
)

// prebuilt returns a machine with one of the guests, which has not been
// started.
func prebuilt(t *testing.T, guest string) *machine.Guest {
	t.Helper()
	script := guesttest.StartScript(t, guesttest.Guests[guest])
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
	for name := range guesttest.Guests {
		t.Run(name, func(t *testing.T) {
			machinetest.Run(t, func(t *testing.T) *machine.Guest { return prebuilt(t, name) })
		})
	}
}
