// Package doctor finds out what a machine lacks to run VM tests, and what line of
// configuration or which command mends it. Its entry point is [Examine].
package doctor

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// State is how well it stands with what a check looks at.
type State string

// The states of a check.
const (
	OK      State = "ok"
	Warning State = "warning" // tests run, but slower, or not all of them
	Missing State = "missing" // tests cannot run
)

// Result is what a check has found.
type Result struct {
	Check   string `json:"check"`
	State   State  `json:"state"`
	Finding string `json:"finding"`          // a sentence
	Remedy  string `json:"remedy,omitempty"` // what mends it: commands, or lines of configuration; unless State is OK
}

// Report is what all checks have found.
type Report struct {
	// CanRun says whether nothing is missing.
	CanRun bool     `json:"canRun"`
	Checks []Result `json:"checks"`
}

// Count says how many checks ended with a state.
func (r *Report) Count(s State) (n int) {
	for _, result := range r.Checks {
		if result.State == s {
			n++
		}
	}
	return n
}

// check is one thing that is looked at. A probe that does not apply to the
// machine returns the zero value.
type check struct {
	name  string
	probe func(context.Context, *machine) Result
}

// checks are all checks, in the order in which they are shown.
var checks = []check{
	{"kvm", kvm},
	{"kvm-in-builds", kvmInBuilds},
	{"nix", nixVersion},
	{"store", store},
	{"trusted-user", trustedUser},
	{"build-users", buildUsers},
	{"experimental-features", experimentalFeatures},
	{"system-features", systemFeatures},
	{"build-hook", buildHook},
	{"uid-range", uidRange},
	{"sandbox", sandbox},
	{"sandbox-paths", sandboxPaths},
	{"devnet", devnet},
	{"tun", tun},
	{"vhost-vsock", vhostVsock},
	{"qemu", qemu},
	{"cores", cores},
	{"memory", memory},
	{"store-space", storeSpace},
	{"tmp-space", tmpSpace},
	{"store-reflink", storeReflink},
	{"tmp-reflink", tmpReflink},
}

// deadline bounds each probe: a device or a file system of a network may never
// answer. Nix is given less, so that a daemon that does not is what a check finds.
const (
	deadline    = 30 * time.Second
	nixDeadline = 10 * time.Second
)

// Examine makes all checks of this machine, at once, and returns what they have
// found in their order. It takes half a minute at most.
func Examine(ctx context.Context) *Report {
	return examine(ctx, thisMachine(), checks, deadline)
}

func examine(ctx context.Context, m *machine, checks []check, deadline time.Duration) *Report {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	found := make([]Result, len(checks))
	var all sync.WaitGroup
	for i, c := range checks {
		all.Go(func() { found[i] = c.run(ctx, m, deadline) })
	}
	all.Wait()
	report := &Report{CanRun: true, Checks: []Result{}}
	for _, result := range found {
		if result.State != "" {
			report.Checks = append(report.Checks, result)
			report.CanRun = report.CanRun && result.State != Missing
		}
	}
	return report
}

// run makes one check. A probe that does not end with its context is left alone.
func (c check) run(ctx context.Context, m *machine, deadline time.Duration) Result {
	ended := make(chan Result, 1)
	go func() { ended <- c.probe(ctx, m) }()
	var result Result
	select {
	case result = <-ended:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		result = Result{State: Warning, Finding: fmt.Sprintf("it is not known: there was no answer within %v", deadline)}
	}
	result.Check = c.name
	return result
}

func ok(format string, args ...any) Result {
	return Result{State: OK, Finding: fmt.Sprintf(format, args...)}
}

func warning(remedy, format string, args ...any) Result {
	return Result{State: Warning, Remedy: remedy, Finding: fmt.Sprintf(format, args...)}
}

func missing(remedy, format string, args ...any) Result {
	return Result{State: Missing, Remedy: remedy, Finding: fmt.Sprintf(format, args...)}
}
