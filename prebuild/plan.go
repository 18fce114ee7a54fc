// Package prebuild builds everything that NixOS VM tests need before they run,
// says beforehand what that takes, and finds the results. Its entry points are
// [Nix.Plan], [Nix.Build], [Find] and [FindClosureInfo].
package prebuild

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"vm-prebuild/testrun/suite"
)

// Plan says what has to be done before VM tests can run.
type Plan struct {
	Installable   string        `json:"installable"`
	Tests         []PlannedTest `json:"tests"` // sorted by name
	Build         []string      `json:"build"` // derivations to build, of all tests together
	Fetch         []string      `json:"fetch"` // store paths to fetch, of all tests together
	DownloadBytes int64         `json:"downloadBytes"`
	UnpackedBytes int64         `json:"unpackedBytes"`
	Shards        []suite.Shard `json:"shards,omitempty"` // made by [Split], if asked for
}

// PlannedTest is one test of a [Plan].
type PlannedTest struct {
	Name          string   `json:"name"`
	Derivation    string   `json:"derivation"` // runs the test when it is built
	Target        string   `json:"target"`     // what is prebuilt: the test's driver or, when it has none, Derivation
	Build         []string `json:"build"`
	Fetch         []string `json:"fetch"`
	DownloadBytes int64    `json:"downloadBytes"`
	UnpackedBytes int64    `json:"unpackedBytes"`
}

// Ready says whether all that the test needs is there.
func (t PlannedTest) Ready() bool { return len(t.Build)+len(t.Fetch) == 0 }

// Ready counts the tests that have all they need.
func (p *Plan) Ready() (n int) {
	for _, t := range p.Tests {
		if t.Ready() {
			n++
		}
	}
	return n
}

// ErrNoTests is returned when an installable has no VM tests.
var ErrNoTests = errors.New("no VM tests\nhint: a VM test is a derivation that has a driver attribute or requires the system feature nixos-test")

// parallelDryRuns bounds how many nix processes look for what tests miss. They
// mostly wait for binary caches.
const parallelDryRuns = 8

// Plan evaluates an installable, such as ".#checks.x86_64-linux", which is a
// test or a set with tests, and finds out what each test misses in the store.
// It builds nothing.
func (n *Nix) Plan(ctx context.Context, installable string) (*Plan, error) {
	tests, err := n.Tests(ctx, installable)
	if err != nil {
		return nil, err
	}
	outputs, err := n.outputsOf(ctx)
	if err != nil {
		return nil, err
	}
	n.say("finding out what is missing for %d tests", len(tests))
	targets := make([]string, len(tests))
	for i, t := range tests {
		targets[i] = outputs(t.Target)
	}
	all, err := n.dryRun(ctx, targets...)
	if err != nil {
		return nil, err
	}
	plan := &Plan{
		Installable: installable, Tests: tests,
		Build: sorted(all.build), Fetch: sorted(all.fetch),
		DownloadBytes: all.downloadBytes, UnpackedBytes: all.unpackedBytes,
	}
	// What tests share is in the lists of each, which no single dry run can tell.
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelDryRuns)
	for i := range tests {
		group.Go(func() error {
			t := &tests[i]
			var one missing
			if len(all.build)+len(all.fetch) > 0 {
				var err error
				if one, err = n.dryRun(ctx, targets[i]); err != nil {
					return fmt.Errorf("test %q: %w", t.Name, err)
				}
			}
			t.Build, t.Fetch = sorted(one.build), sorted(one.fetch)
			t.DownloadBytes, t.UnpackedBytes = one.downloadBytes, one.unpackedBytes
			return nil
		})
	}
	return plan, group.Wait()
}

func (n *Nix) dryRun(ctx context.Context, targets ...string) (missing, error) {
	args := append([]string{"--dry-run", "--no-link"}, n.Args...)
	_, stderr, err := n.run(ctx, nil, "build", append(args, targets...)...)
	if err != nil {
		return missing{}, fmt.Errorf("finding out what is missing: %w", err)
	}
	return parseDryRun(stderr)
}

// sorted sorts paths and makes them a list also when there are none.
func sorted(paths []string) []string {
	slices.Sort(paths)
	return append([]string{}, paths...)
}
