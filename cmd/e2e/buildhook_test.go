package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestHookBuilds builds what this machine's Nix refuses to.
func TestHookBuilds(t *testing.T) {
	eachHookNix(t, func(t *testing.T, n *hookNix) {
		n.mustFail("passing", []string{"is required to build"}, n.withoutHook()...)
		paths, log := n.mustBuild("dependent passing structured")
		wantTexts(t, log, "on 'vm-prebuild'", "a line of the log")
		dependent, passing := paths[0], paths[1]
		ordinary := n.query("--references", dependent)
		input := strings.TrimSpace(n.read(passing + "/input"))
		logOutput := strings.TrimSpace(n.read(passing + "/log"))
		if got := n.read(dependent); got != input+"\n"+logOutput+"\n" {
			t.Errorf("%s has %q", dependent, got)
		}
		slices.Sort(ordinary)
		want := []string{input, logOutput}
		slices.Sort(want)
		for path, references := range map[string][]string{dependent: want, passing: want, logOutput: {input}} {
			got := n.query("--references", path)
			slices.Sort(got)
			if diff := cmp.Diff(references, got); diff != "" {
				t.Errorf("references of %s: %s", path, diff)
			}
		}
		drv := n.query("--deriver", passing)
		if got := n.query("--outputs", drv[0]); !slices.Contains(got, passing) || !slices.Contains(got, logOutput) {
			t.Errorf("outputs of %s: %v", drv, got)
		}
		if log, err := n.command("nix-store", "--read-log", drv[0]).Output(); err != nil || !strings.Contains(string(log), "a line of the log") {
			t.Errorf("the log that Nix keeps: %v\n%s", err, log)
		}
		info, err := n.command("nix", "path-info", "--json", passing).Output()
		if err != nil || !strings.Contains(strings.ReplaceAll(string(info), " ", ""), `"ultimate":true`) {
			t.Errorf("%v: %s", err, info)
		}
		if st, err := os.Stat(filepath.Join(n.root, passing, "run")); err != nil || st.Mode() != 0o555 || st.ModTime().Unix() != 1 {
			t.Errorf("run: %v, %v", st, err)
		}
		if got := n.read(paths[2]); got != "two\n" {
			t.Errorf("structured attributes: %q", got)
		}
		n.checkClean()
		// All is there, and nobody is asked.
		again, log := n.mustBuild("dependent passing structured")
		if strings.Contains(log, "building") || !slices.Equal(again, paths) {
			t.Errorf("built again: %s", log)
		}
	})
}

// TestHookChangesNothingElse builds what is no test, and tests that are not ours.
func TestHookChangesNothingElse(t *testing.T) {
	eachHookNix(t, func(t *testing.T, n *hookNix) {
		_, log := n.mustBuild("ordinary fixed jobs", "--arg", "count", "3", "--max-jobs", "2")
		if strings.Contains(log, "vm-prebuild") {
			t.Error(log)
		}
		n.mustBuild("ordinary", "--check")
		n.mustFail("fixedTest", []string{"its output has a fixed hash", "is required to build"})
		n.mustFail("otherFeature", []string{"it needs the feature elsewhere, too", "is required to build"})
		n.mustBuild("start", "--max-jobs", "0")
		n.mustFail("ordinary", []string{"nable to start any build;", "either increase '--max-jobs' or enable remote builds"}, "--max-jobs", "0", "--argstr", "salt", "new")
		n.checkClean()
	})
}

// TestHookFails: of a failing test, Nix gets the log and the news, and goes on where it
// is to.
func TestHookFails(t *testing.T) {
	eachHookNix(t, func(t *testing.T, n *hookNix) {
		log := n.mustFail("failing passing", []string{"the assertion is false", "failed with exit code 3", "a line of the log"}, "--keep-going")
		if strings.Contains(log, "timed out") {
			t.Error(log)
		}
		n.mustFail("forbidden", []string{"is not allowed to refer to"})
		n.mustFail("endless", []string{"tick", "timed out after 2 seconds"}, "--option", "timeout", "2")
		n.mustFail("silent", []string{"nothing more", "timed out after 1 seconds of silence"}, "--option", "max-silent-time", "1")
		n.checkClean()
	})
}
