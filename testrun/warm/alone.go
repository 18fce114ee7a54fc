package warm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/vlan"
)

// vlanVariable begins the names of the variables that tell start scripts where VLANs
// are; the VLAN's number follows.
const vlanVariable = "QEMU_VDE_SOCKET_"

// alone returns options with which a machine boots to be saved: in VLANs that have
// the numbers of the test's and nobody else in them, and with a shared directory that
// is empty. What a machine hears from others, or finds of theirs, would become part
// of its state, whose key knows nothing of it; and the others would see it come, go,
// and come again. Whoever calls it calls end once the machine has ended.
func alone(m machine.Machine, o machine.StartOptions) (_ machine.StartOptions, end func() error, err error) {
	// Where its sockets can be, those of the VLANs can. A saver that was killed has
	// left it; and two machines of that name cannot run there at once.
	own := filepath.Join(filepath.Dir(m.Dirs().State), "vm-saving-"+m.Name())
	if err := os.RemoveAll(own); err != nil {
		return o, nil, err
	}
	switches := map[int]*vlan.VLAN{}
	end = func() error {
		var failed []error
		for _, s := range switches {
			failed = append(failed, s.Close())
		}
		return errors.Join(append(failed, os.RemoveAll(own))...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, end())
		}
	}()
	o.SharedDir = filepath.Join(own, "shared")
	if err := os.MkdirAll(o.SharedDir, 0o700); err != nil {
		return o, nil, err
	}
	if o.Env == nil {
		o.Env = os.Environ()
	}
	o.Env = slices.Clone(o.Env)
	for i, variable := range o.Env {
		name, dir, _ := strings.Cut(variable, "=")
		digits, ok := strings.CutPrefix(name, vlanVariable)
		if !ok || dir == "" {
			continue
		}
		number, err := strconv.Atoi(digits)
		if err != nil {
			return o, nil, fmt.Errorf("environment variable %s: its name ends in no number of a VLAN", name)
		}
		if switches[number] == nil {
			if switches[number], err = vlan.Start(number, filepath.Join(own, "vde"+digits), vlan.Options{}); err != nil {
				delete(switches, number)
				return o, nil, err
			}
		}
		o.Env[i] = name + "=" + switches[number].Dir()
	}
	return o, end, nil
}
