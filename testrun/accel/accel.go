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

// probeLimit is how long the probe's guest code may take. Hardware runs it in
// about a millisecond, nested virtualisation in a few; instruction emulation
// needs from half a second on.
const probeLimit = 100 * time.Millisecond

// probeTimes is how often it is tried, because a busy host may not have given it
// a CPU for so long.
const probeTimes = 3

// Probe runs a loop of a million 64-bit guest instructions under KVM. It takes
// a few milliseconds where KVM works and at most a third of a second elsewhere.
func Probe(ctx context.Context) (r Result) {
	for range probeTimes {
		limited, cancel := context.WithTimeout(ctx, probeLimit)
		r = probe(limited)
		timedOut := limited.Err() != nil
		cancel()
		if r.KVM || !timedOut {
			break
		}
	}
	return r
}
