// Package accel finds out whether guests can use this host's KVM, by running
// guest code under it. [Probe] is its one entry point.
//
// That /dev/kvm opens proves little: in some containers and virtual machines
// the device is there and every ioctl succeeds, but each guest instruction is
// emulated in software, so that a guest's firmware alone takes minutes. QEMU's
// "-machine accel=kvm:tcg" does not fall back to TCG there.
package accel

import (
	"context"
	"time"
)

// Result says whether KVM can be used and, if not, why.
type Result struct {
	KVM    bool
	Reason string // why not; one clause that fits behind "KVM cannot be used: "
	Hint   string // what the user can do about it; may be empty
}

// cpuLimit is how much CPU time the probe's guest code may take. Hardware runs
// it in about a millisecond, nested virtualisation in a few; instruction
// emulation needs from half a second on. It is CPU time and not time because a
// busy host may not give us a CPU for a while.
const cpuLimit = 40 * time.Millisecond

// probeLimit bounds the probe on a host that gives it no CPU at all.
const probeLimit = 5 * time.Second

// Probe runs a loop of a million 64-bit guest instructions under KVM. It takes
// a few milliseconds where KVM works, and elsewhere about as long as cpuLimit
// when the host is not busy.
func Probe(ctx context.Context) Result {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	return probe(ctx)
}
