package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// readmeSection is a script of the commands in a section of README.md, in which a
// directory of the test is /tmp.
func readmeSection(t *testing.T, heading, tmp string) string {
	t.Helper()
	readme, err := os.ReadFile(top + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(readme), "\n"+heading+"\n")
	if !found {
		t.Fatalf("README.md has no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n##")
	script := "set -euxo pipefail\nunset " + manifestEnv + "\n"
	for i, part := range strings.Split(section, "```") {
		if commands, ok := strings.CutPrefix(part, "sh\n"); ok && i%2 == 1 {
			script += commands
		}
	}
	return strings.ReplaceAll(script, "/tmp/", tmp+"/")
}

// runScript runs a script in dir and returns what it prints.
func runScript(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// The README's section about closures works, line by line.
func TestREADMEClosures(t *testing.T) {
	bin, result := need(t, binEnv), filepath.Dir(need(t, manifestEnv))
	dir := t.TempDir()
	for name, target := range map[string]string{"bin": bin, "result": result} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	out := runScript(t, dir, readmeSection(t, "### Closures: into a store, out to a cache", dir))
	if !strings.Contains(out, "nothing to do") {
		t.Error("the second import did something")
	}
}

// So does the Nix tour.
func TestREADMENixTour(t *testing.T) {
	need(t, manifestEnv)
	out := runScript(t, tree(t), readmeSection(t, "### The Nix tour", t.TempDir()))
	if !strings.Contains(out, "1 passed") || !strings.Contains(out, "-debian-jq") {
		t.Error("the tour has not been where it was to go")
	}
}

// And what it says of warm machines.
func TestREADMEWarm(t *testing.T) {
	bin := need(t, binEnv)
	need(t, manifestEnv)
	dir := tree(t)
	if err := os.Symlink(bin, filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("offline", "--override-input nixpkgs path:./nix/offline --no-write-lock-file")
	out := runScript(t, dir, readmeSection(t, "### Warm machines", t.TempDir()))
	if passed := strings.Count(out, " 5 passed"); passed != 2 {
		t.Errorf("all tests passed %d times, not twice", passed)
	}
	// Of client, server and two kinds of machine, unpacked to start from.
	if states := strings.Count(out, "  unit:multi-user.target  "); states != 4 {
		t.Errorf("%d states are listed, not 4", states)
	}
}
