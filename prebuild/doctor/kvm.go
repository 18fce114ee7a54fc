package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const kvmDevice = "/dev/kvm"

// kvm lets a guest run: that the device opens proves little.
func kvm(ctx context.Context, m *machine) Result {
	const instead = "so machines run under TCG, several times slower"
	_, err := os.Stat(m.path(kvmDevice))
	if errors.Is(err, fs.ErrNotExist) {
		return warning(m.kvmModule(), "there is no %s, %s", kvmDevice, instead)
	}
	f, err := os.OpenFile(m.path(kvmDevice), os.O_RDWR, 0)
	if err != nil {
		return warning(m.openKVM(), "%s may not be opened by %s, %s", kvmDevice, m.user, instead)
	}
	f.Close()
	if r := m.kvm(ctx); !r.KVM {
		return warning("use a machine whose processor has VT-x or AMD-V; in a virtual machine, turn on nested virtualisation in its host: modprobe kvm_intel nested=1 (or kvm_amd)",
			"%s opens, but no guest can use it, %s; %s", kvmDevice, instead, r.Reason)
	}
	return ok("guests run under KVM")
}

// kvmModule is what brings the device.
func (m *machine) kvmModule() string {
	cpuinfo, _ := os.ReadFile(m.path("/proc/cpuinfo")) // without it, nothing is known
	_, line, _ := strings.Cut(string(cpuinfo), "\nflags")
	line, _, _ = strings.Cut(line, "\n")
	flags := map[string]bool{}
	for flag := range strings.FieldsSeq(line) {
		flags[flag] = true
	}
	switch {
	case flags["vmx"]:
		return "modprobe kvm_intel"
	case flags["svm"]:
		return "modprobe kvm_amd"
	case flags["hypervisor"]:
		return "turn on nested virtualisation in the host of this virtual machine: modprobe kvm_intel nested=1 (or kvm_amd)"
	default:
		return "turn on VT-x or AMD-V in the machine's firmware; for a container, pass the device: --device " + kvmDevice
	}
}

// udevRule opens the device to all, as NixOS does.
const udevRule = `echo 'KERNEL=="kvm", MODE="0666"' > /etc/udev/rules.d/65-kvm.rules && udevadm control --reload && udevadm trigger ` + kvmDevice

// openKVM is what lets the user open the device.
func (m *machine) openKVM() string {
	mode, owner, err := m.kvmGroup()
	if err == nil && mode&0o060 == 0o060 && owner.name != "" && owner.name != "root" {
		return "usermod --append --groups " + owner.name + " " + m.user + " # and log in again"
	}
	return udevRule
}

// kvmGroup is the device's mode and the group that it belongs to.
func (m *machine) kvmGroup() (mode fs.FileMode, owner group, err error) {
	var stat unix.Stat_t
	if err := unix.Stat(m.path(kvmDevice), &stat); err != nil {
		return 0, group{}, err
	}
	id := strconv.FormatUint(uint64(stat.Gid), 10)
	groups := m.groups()
	if i := slices.IndexFunc(groups, func(g group) bool { return g.id == id }); i >= 0 {
		owner = groups[i]
	}
	return fs.FileMode(stat.Mode).Perm(), owner, nil
}

// kvmInBuilds finds out whether the users that Nix builds as may open the device.
// Debian gives it to the group kvm, which these are not in.
func kvmInBuilds(ctx context.Context, m *machine) Result {
	builders, found := m.group(m.buildGroup(ctx))
	if !found {
		return Result{}
	}
	mode, owner, err := m.kvmGroup()
	if err != nil {
		return Result{} // there is no device
	}
	if mode&0o006 == 0o006 {
		return ok("the users that Nix builds as may open %s", kvmDevice)
	}
	for _, user := range builders.members {
		if mode&0o060 != 0o060 || !slices.Contains(owner.members, user) {
			return warning(udevRule, "%s may not be opened by %s, which Nix builds as, so machines run under TCG in the sandbox", kvmDevice, user)
		}
	}
	return ok("the users that Nix builds as are in the group %s", owner.name)
}
