package machine_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vm-prebuild/testrun/efivars"
)

func TestEFIVars(t *testing.T) {
	g, f, _ := newGuest(t)
	if vars, err := g.ReadEFIVars(); vars != nil || err != nil {
		t.Errorf("%v %v, want nothing", vars, err)
	}
	if err := g.CreateEFIVars(); err != nil {
		t.Fatal(err)
	}
	wantAssertion(t, g.CreateEFIVars(), "OVMF variables store exists")
	if vars, err := g.ReadEFIVars(); vars == nil || len(vars) > 0 || err != nil {
		t.Errorf("%v %v, want an empty list", vars, err)
	}
	id, err := efivars.ParseGUID("a19f72f8-b554-4bd7-a0c2-2762bd854691")
	if err != nil {
		t.Fatal(err)
	}
	demo := efivars.Variable{Name: "Demo", GUID: id, Attributes: efivars.NonVolatile, Data: bytes.Repeat([]byte{0x2a}, 100)}
	if err := g.WriteEFIVars([]efivars.Variable{demo}); err != nil {
		t.Fatal(err)
	}
	vars, err := g.ReadEFIVars()
	if err != nil || len(vars) != 1 || vars[0].Name != "Demo" || !bytes.Equal(vars[0].Data, demo.Data) {
		t.Errorf("%v %v", vars, err)
	}
	text, err := g.DumpEFIVars()
	if err != nil || text != id.String()+" Demo: attributes 0x1, 100 bytes "+strings.Repeat("2a", 64)+"…" {
		t.Errorf("%q %v", text, err)
	}

	f.started = 1
	const running = "System is currently running and concurrent reads / writes to the OVMF variables is unsupported"
	wantAssertion(t, second(g.ReadEFIVars()), running)
	wantAssertion(t, g.WriteEFIVars(nil), running)
	wantAssertion(t, g.CreateEFIVars(), running)
	wantAssertion(t, second(g.DumpEFIVars()), running)

	f.started = 0
	file := filepath.Join(f.dirs.State, "fake-efi-vars.fd")
	if err := os.WriteFile(file, []byte("not a store"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{second(g.ReadEFIVars()), g.WriteEFIVars(nil)} {
		if err == nil || !strings.Contains(err.Error(), `machine "fake"`) || !strings.Contains(err.Error(), file) {
			t.Error(err)
		}
	}
	// Where there is no store yet, writing makes one.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := g.WriteEFIVars([]efivars.Variable{demo}); err != nil {
		t.Error(err)
	}
}
