package e2e

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"vm-prebuild/cmd/internal/synthetic"
)

// eventAt is when the last such event was logged.
func (n *hookNix) eventAt(event string) (at time.Time) {
	n.t.Helper()
	for _, e := range n.logEntries() {
		if e.Event == event {
			at = e.Time
		}
	}
	if at.IsZero() {
		n.t.Fatalf("no event %q in\n%s", event, n.decisions())
	}
	return at
}

// timeIn reads a time, in seconds, that a test has written.
func (n *hookNix) timeIn(path string) time.Time {
	n.t.Helper()
	seconds, err := strconv.ParseFloat(strings.TrimSpace(n.read(path)), 64)
	if err != nil {
		n.t.Fatal(err)
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9))
}

// least is the shortest of some times: what the machine does besides is not judged.
func least(n int, measure func(i int) time.Duration) time.Duration {
	best := time.Duration(math.MaxInt64)
	for i := range n {
		best = min(best, measure(i))
	}
	return best
}

// TestHookIsFast measures what the hook adds to a test.
func TestHookIsFast(t *testing.T) {
	n := oneHookNix(t)
	n.mustBuild("ordinary")

	t.Run("from accept to the start of the builder", func(t *testing.T) {
		took := least(7, func(i int) time.Duration {
			paths, _ := n.mustBuild("start", "--argstr", "salt", fmt.Sprint(i))
			return n.timeIn(paths[0]).Sub(n.eventAt("accepted"))
		})
		t.Log(took)
		if took > 150*time.Millisecond {
			t.Errorf("%v, want at most 150 ms", took)
		}
	})

	t.Run("a served result", func(t *testing.T) {
		cache := filepath.Join(n.dir(), "cache")
		paths, _ := n.mustBuild("passing")
		if out, err := n.command("nix", "copy", "--to", "file://"+cache, paths[0]).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		n.flags("--tcg=allow", "--cache", cache)
		took := least(5, func(int) time.Duration {
			log := strings.TrimSpace(n.read(paths[0] + "/log"))
			if out, err := n.command("nix-store", "--delete", "--ignore-liveness", paths[0], log).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			start := time.Now() // of Nix, not only of the hook
			n.mustBuild("passing")
			return time.Since(start)
		})
		wantTexts(t, n.decisions(), `"event":"served"`)
		t.Logf("%v, from the start of nix-build to its end", took)
		if took > 300*time.Millisecond {
			t.Errorf("%v, want at most 300 ms", took)
		}
	})

	t.Run("3000 inputs", func(t *testing.T) {
		// Few files: nix copy takes longer with more, and the hook does not.
		s := newSource(t, synthetic.Spec{Paths: 3000, Files: 9000, Bytes: 40_000_000, Seed: 3})
		inner := *n
		inner.t, inner.root = t, s.root
		inputs := "[ " + `"` + strings.Join(s.paths, `" "`) + `" ]`
		inner.file = filepath.Join(n.dir(), "inputs.nix")
		if err := os.WriteFile(inner.file, []byte("import "+absolute(t, "testdata/buildhook/tests.nix")+" { inputs = "+inputs+"; salt = builtins.getEnv \"SALT\"; }"), 0o644); err != nil {
			t.Fatal(err)
		}
		took := least(3, func(i int) time.Duration {
			t.Setenv("SALT", fmt.Sprint("inputs", i))
			inner.mustBuild("start")
			return inner.eventAt("started").Sub(inner.eventAt("accepted"))
		})
		byNix := least(2, func(i int) time.Duration {
			dest := filepath.Join(n.dir(), fmt.Sprint("copy", i))
			start := time.Now()
			if out, err := nixCommand(t, "nix", "copy", "--no-check-sigs", "--from", s.root, "--to", dest, "--all").CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			return time.Since(start)
		})
		t.Logf("%v until Nix has a store with them, nix copy takes %v: %.1f times as long", took, byNix, float64(byNix)/float64(took))
		if byNix < 10*took {
			t.Errorf("nix copy takes %v, less than ten times %v", byNix, took)
		}
	})
}

func absolute(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
