package machine

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"vm-prebuild/testrun/efivars"
)

// efiFile is where the start scripts of nixpkgs are told to keep the variables
// of the machine's UEFI firmware.
func (g *Guest) efiFile() string {
	return filepath.Join(g.Machine.Dirs().State, g.Machine.Name()+"-efi-vars.fd")
}

// stoppedForEFI fails while the firmware may be using its variables.
func (g *Guest) stoppedForEFI() error {
	if g.Machine.Running() {
		return assertionf("System is currently running and concurrent reads / writes to the OVMF variables is unsupported")
	}
	return nil
}

// ReadEFIVars returns the UEFI variables of a machine that does not run; nil
// when it has no store of them yet.
func (g *Guest) ReadEFIVars() ([]efivars.Variable, error) {
	if err := g.stoppedForEFI(); err != nil {
		return nil, err
	}
	s, err := efivars.Read(g.efiFile())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, Errorf(g.Machine.Name(), "reading UEFI variables: %w", err)
	}
	return append([]efivars.Variable{}, s.Variables...), nil
}

// WriteEFIVars adds UEFI variables of a machine that does not run, or changes
// them; all others stay. Where there is no store it makes one.
func (g *Guest) WriteEFIVars(variables []efivars.Variable) error {
	if err := g.stoppedForEFI(); err != nil {
		return err
	}
	s, err := efivars.Read(g.efiFile())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s = efivars.New()
	case err != nil:
		return Errorf(g.Machine.Name(), "writing UEFI variables: %w", err)
	}
	s.Set(variables...)
	return g.writeEFI(s)
}

// CreateEFIVars makes an empty store of UEFI variables for a machine that does
// not run and has none.
func (g *Guest) CreateEFIVars() error {
	if err := g.stoppedForEFI(); err != nil {
		return err
	}
	if _, err := os.Lstat(g.efiFile()); err == nil {
		return assertionf("OVMF variables store exists")
	}
	return g.writeEFI(efivars.New())
}

func (g *Guest) writeEFI(s *efivars.Store) error {
	err := os.MkdirAll(g.Machine.Dirs().State, 0o700)
	if err == nil {
		err = efivars.Write(g.efiFile(), s)
	}
	if err != nil {
		return Errorf(g.Machine.Name(), "writing UEFI variables: %w", err)
	}
	return nil
}

// DumpEFIVars describes the UEFI variables of a machine that does not run, a
// line each.
func (g *Guest) DumpEFIVars() (string, error) {
	variables, err := g.ReadEFIVars()
	if err != nil {
		return "", err
	}
	lines := make([]string, len(variables))
	for i, v := range variables {
		const most = 64 // bytes of data
		data, more := v.Data, ""
		if len(data) > most {
			data, more = data[:most], "…"
		}
		lines[i] = fmt.Sprintf("%v %s: attributes %#x, %d bytes %s%s",
			v.GUID, v.Name, uint32(v.Attributes), len(v.Data), hex.EncodeToString(data), more)
	}
	return strings.Join(lines, "\n"), nil
}
