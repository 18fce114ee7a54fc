package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The README's section about closures works, line by line.
func TestREADMEClosures(t *testing.T) {
	bin, result := need(t, binEnv), filepath.Dir(need(t, manifestEnv))
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(readme), "\n### Closures: into a store, out to a cache\n")
	if !found {
		t.Fatal("README.md has no section about closures")
	}
	section, _, _ = strings.Cut(section, "\n### ")
	dir := t.TempDir()
	script := "set -euxo pipefail\n"
	for i, part := range strings.Split(section, "```") {
		if i%2 == 1 {
			script += strings.TrimPrefix(part, "sh\n")
		}
	}
	script = strings.ReplaceAll(script, "/tmp/", dir+"/")
	for name, target := range map[string]string{"bin": bin, "result": result} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "nothing to do") {
		t.Error("the second import did something")
	}
}
