package qemu_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vm-prebuild/testrun/efivars"
	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/ocr"
)

// TestTextOnTheScreen reads what the firmware of a real machine shows.
func TestTextOnTheScreen(t *testing.T) {
	if _, err := exec.LookPath("tesseract"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	g := &machine.Guest{Machine: started(t), Bus: event.NewBus(), Reader: ocr.New(2)}
	ctx := t.Context()
	if err := g.WaitForText(ctx, `(?i)boot(?!ed)`, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	text, err := g.ScreenText(ctx)
	if err != nil || !strings.Contains(text, "iPXE") && !strings.Contains(text, "Boot") {
		t.Errorf("%q %v", text, err)
	}
	variants, err := g.ScreenTextVariants(ctx)
	if err != nil || len(variants) != 3 {
		t.Errorf("%q %v", variants, err)
	}
	if left, _ := filepath.Glob(filepath.Join(g.Machine.Dirs().State, "screen*")); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

// TestEFIVarsOfAFirmware has OVMF start with variables that we wrote, and
// reads those that it wrote.
func TestEFIVarsOfAFirmware(t *testing.T) {
	const code = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	if _, err := os.Stat(code); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	m, g := newGuest(t, `exec qemu-system-x86_64 -machine q35,accel=kvm:tcg -cpu max -m 256 -nic none \
		-drive if=pflash,format=raw,unit=0,readonly=on,file=`+code+` \
		-drive if=pflash,format=raw,unit=1,file="$NIX_EFI_VARS" $QEMU_OPTS "$@"`, time.Minute)
	ctx := t.Context()
	g.Boot.Env = append(os.Environ(), "NIX_EFI_VARS="+filepath.Join(m.Dirs().State, "unit-efi-vars.fd"))
	if err := g.CreateEFIVars(); err != nil {
		t.Fatal(err)
	}
	id, err := efivars.ParseGUID("a19f72f8-b554-4bd7-a0c2-2762bd854691")
	if err != nil {
		t.Fatal(err)
	}
	demo := efivars.Variable{
		Name:       "Demo",
		GUID:       id,
		Attributes: efivars.NonVolatile | efivars.BootServiceAccess | efivars.RuntimeAccess,
		Data:       []byte{0x2a},
	}
	if err := g.WriteEFIVars([]efivars.Variable{demo}); err != nil {
		t.Fatal(err)
	}
	// The firmware writes variables of its own while it starts. It has found
	// our store to be a good one if it leaves what is in there.
	find := func(name string) *efivars.Variable {
		vars, err := efivars.Read(filepath.Join(m.Dirs().State, "unit-efi-vars.fd"))
		if err != nil {
			return nil // it is being written
		}
		for _, v := range vars.Variables {
			if v.Name == name {
				return &v
			}
		}
		return nil
	}
	if err := m.Start(ctx, g.Boot); err != nil {
		t.Fatal(err)
	}
	wantAssertion(t, g.CreateEFIVars(), "System is currently running")
	for deadline := time.Now().Add(4 * time.Minute); find("BootOrder") == nil && time.Now().Before(deadline); {
		time.Sleep(200 * time.Millisecond)
	}
	if err := m.Crash(ctx); err != nil {
		t.Fatal(err)
	}
	vars, err := g.ReadEFIVars()
	if err != nil {
		t.Fatal(err)
	}
	if v := find("Demo"); v == nil || string(v.Data) != "\x2a" || v.GUID != id {
		t.Errorf("our variable has become %v", v)
	}
	if find("BootOrder") == nil {
		t.Errorf("the firmware has written no BootOrder, only %d variables", len(vars))
	}
}
