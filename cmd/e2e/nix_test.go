package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// offline makes nix use nix/offline for nixpkgs.
var offline = []string{"--override-input", "nixpkgs", "path:./nix/offline", "--no-write-lock-file"}

// command runs a program at the top of the tree in dir and returns its output.
func command(t *testing.T, dir, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// top is the top of the tree.
const top = "../.."

// tree copies what git knows of the tree, as it is now.
func tree(t *testing.T) string {
	t.Helper()
	files, err := command(t, top, "git", "ls-files", "-z")
	if err != nil {
		t.Fatal(files, err)
	}
	dir := t.TempDir()
	for name := range strings.SplitSeq(strings.TrimSuffix(files, "\x00"), "\x00") {
		info, err := os.Stat(filepath.Join(top, name))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// build builds an attribute of the flake in dir.
func build(t *testing.T, dir, attribute string, args ...string) (string, error) {
	t.Helper()
	args = append([]string{"build", "path:" + dir + "#" + attribute, "--no-link", "-L"}, append(args, offline...)...)
	return command(t, dir, "nix", args...)
}

// TestSandbox runs one test inside the Nix sandbox, which passes, and again
// with an assertion made false, which fails and says so.
func TestSandbox(t *testing.T) {
	need(t, manifestEnv)
	const attribute = "checks.x86_64-linux.vm-help"
	dir := tree(t)
	if out, err := build(t, dir, attribute); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	file := filepath.Join(dir, "examples/cli/tests/help.nix")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), "start_all()", "start_all()\n    machine.fail(\"true\")", 1)
	if changed == string(text) {
		t.Fatal("the test script has changed; this test no longer makes it fail")
	}
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := build(t, dir, attribute)
	if err == nil {
		t.Fatalf("the build succeeded:\n%s", out)
	}
	for _, want := range []string{
		"!!! RequestedAssertionFailed: command `true` unexpectedly succeeded",
		`machine.fail("true")`,
		"failed with exit code 1",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the log lacks %q:\n%s", want, out)
		}
	}
}

// TestImport imports the closure of the prebuilt tests into a fresh store, with
// Nix as the judge, and again, which is a fast no-op.
func TestImport(t *testing.T) {
	result := filepath.Dir(need(t, manifestEnv))
	store := filepath.Join(t.TempDir(), "store")
	imported := func() (s struct {
		Paths, AlreadyValid, Placed int
		TotalNs                     time.Duration
	}) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), tool(t, "vm-prebuild"), "import", "--store", store, "--json", result).Output()
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := imported()
	if first.Placed == 0 || first.Placed != first.Paths {
		t.Errorf("%+v: want all paths imported", first)
	}
	out, err := command(t, ".", "nix-store", "--verify", "--check-contents", "--store", store)
	if err != nil || strings.Contains(out, "error") {
		t.Errorf("%v\n%s", err, out)
	}
	second := imported()
	if second.Placed != 0 || second.AlreadyValid != first.Paths {
		t.Errorf("%+v: want nothing to do", second)
	}
	if second.TotalNs > first.TotalNs/2 && second.TotalNs > 200*time.Millisecond {
		t.Errorf("a no-op took %v, the import %v", second.TotalNs, first.TotalNs)
	}
	t.Logf("%d paths in %v; again in %v", first.Paths, first.TotalNs, second.TotalNs)
	if out, err := command(t, ".", "chmod", "-R", "u+w", store); err != nil {
		t.Error(out, err) // t.TempDir could not remove a store
	}
}

// TestRunner runs one test through result/bin/run-vm-tests.
func TestRunner(t *testing.T) {
	result := filepath.Dir(need(t, manifestEnv))
	dir := t.TempDir()
	out, err := command(t, dir, filepath.Join(result, "bin/run-vm-tests"), "-o", "out", "--junit-xml", "junit.xml", "vm-themes")
	if err != nil || !strings.Contains(out, "1 passed") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, file := range []string{"junit.xml", "out/vm-themes/log"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			t.Error(err)
		}
	}
}

// TestPlan says of a built suite that there is nothing to build.
func TestPlan(t *testing.T) {
	need(t, manifestEnv)
	out, err := command(t, top, tool(t, "vm-prebuild"), append([]string{"plan", "--"}, offline...)...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(out, "vm-two-machines") {
		t.Errorf("a test is missing:\n%s", out)
	}
	t.Log(out)
}
