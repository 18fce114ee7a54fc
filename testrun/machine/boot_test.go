package machine_test

import (
	"strings"
	"testing"
)

// withInitrd is a fake machine that can lose its shell.
type withInitrd struct {
	*fake
	connected bool
}

func (w *withInitrd) Connected() bool { return w.connected }
func (w *withInitrd) Disconnect()     { w.connected = false }

func TestSwitchRoot(t *testing.T) {
	g, f, log := newGuest(t)
	w := &withInitrd{fake: f, connected: true}
	g.Machine = w
	f.program(t, "systemctl", `[ "$1" = isolate ] || echo ActiveState=active`)
	if err := g.SwitchRoot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.connected {
		t.Error("the initrd's shell is still used")
	}
	if len(f.sent) != 1 || f.sent[0] != "systemctl isolate --no-block initrd-switch-root.target 2>/dev/null >/dev/null" {
		t.Errorf("sent %q", f.sent)
	}
	if said := strings.Join(log.lines, "\n"); said != "waiting for unit initrd.target" {
		t.Errorf("said %s", said)
	}
	f.program(t, "systemctl", "echo ActiveState=failed")
	wantAssertion(t, g.SwitchRoot(t.Context()), `unit "initrd.target" reached state "failed"`)
}
