package prebuild

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vm-prebuild/testrun/suite"
)

// needNix gives the test a real Nix with an empty store of its own.
func needNix(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("nix"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	// Nix makes store paths read-only, directories too.
	t.Cleanup(func() { _ = exec.Command("chmod", "-R", "u+w", dir).Run() })
	for name, value := range map[string]string{
		"NIX_STORE_DIR": filepath.Join(dir, "store"),
		"NIX_STATE_DIR": filepath.Join(dir, "state"),
		"NIX_LOG_DIR":   filepath.Join(dir, "log"),
		"NIX_CONF_DIR":  filepath.Join(dir, "conf"),
		"NIX_REMOTE":    "",
		"HOME":          filepath.Join(dir, "home"),
		"NIX_CONFIG":    "build-users-group =\nsandbox = false\nsubstituters =\n",
	} {
		t.Setenv(name, value)
	}
}

// flake writes a flake without inputs and returns its path as an installable.
func flake(t *testing.T, outputs string) string {
	t.Helper()
	dir := t.TempDir()
	text := fmt.Sprintf(`{ outputs = _: let
  drv = name: attrs: derivation ({ inherit name; system = %q; builder = "/bin/sh"; args = [ "-c" "echo ${name} > $out" ]; } // attrs);
in { %s }; }`, System(), outputs)
	if err := os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return "path:" + dir
}

const planOutputs = `
  checks = rec {
    unit = drv "unit-tests" { };
    name = "not a derivation";
    vm-a = drv "vm-test-run-a" { requiredSystemFeatures = [ "kvm" "nixos-test" ]; } // { driver = drv "driver-a" { inherit dep; }; };
    vm-b = drv "vm-test-run-b" { requiredSystemFeatures = [ "nixos-test" ]; inherit dep; };
    vm-lazy = { type = "derivation"; name = "c"; inherit (unit) drvPath outPath; driver = drv "driver-c" { inherit dep other; }; };
    dep = drv "dep" { };
    other = drv "other" { };
  };
  none.unit = drv "unit-tests" { };
  broken.x = throw "out of order";`

// names strips the store directory, hashes and ".drv" from store paths.
func names(paths []string) []string {
	out := []string{}
	for _, p := range paths {
		out = append(out, strings.TrimSuffix(filepath.Base(p)[33:], ".drv"))
	}
	slices.Sort(out)
	return out
}

func TestPlan(t *testing.T) {
	needNix(t)
	url := flake(t, planOutputs)
	var nix Nix
	plan, err := nix.Plan(t.Context(), url+"#checks")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"dep", "driver-a", "driver-c", "other", "vm-test-run-b"}, names(plan.Build)); diff != "" {
		t.Error(diff)
	}
	want := []struct {
		name, target string
		build        []string
	}{
		{"vm-a", "driver-a", []string{"dep", "driver-a"}},
		{"vm-b", "vm-test-run-b", []string{"dep", "vm-test-run-b"}},
		{"vm-lazy", "driver-c", []string{"dep", "driver-c", "other"}},
	}
	if len(plan.Tests) != len(want) {
		t.Fatalf("%+v", plan.Tests)
	}
	for i, w := range want {
		got := plan.Tests[i]
		if diff := cmp.Diff(w.build, names(got.Build)); got.Name != w.name || names([]string{got.Target})[0] != w.target || diff != "" {
			t.Errorf("%s, target %s: %s", got.Name, got.Target, diff)
		}
		if got.Ready() || len(got.Fetch) != 0 {
			t.Errorf("%+v", got)
		}
	}

	// A single test, and after it was built.
	one, err := nix.Plan(t.Context(), url+"#checks.vm-a")
	if err != nil || len(one.Tests) != 1 || one.Tests[0].Name != "a" || one.Tests[0].Target != plan.Tests[0].Target {
		t.Fatalf("%+v, %v", one, err)
	}
	if _, _, err := nix.run(t.Context(), nil, "build", "--no-link", url+"#checks.vm-a.driver"); err != nil {
		t.Fatal(err)
	}
	one, err = nix.Plan(t.Context(), url+"#checks.vm-a")
	if err != nil || one.Ready() != 1 || len(one.Build) != 0 {
		t.Fatalf("%+v, %v", one, err)
	}

	// With a binary cache and a database that knows nothing, paths are fetched.
	cache := "file://" + t.TempDir()
	if _, _, err := nix.run(t.Context(), nil, "copy", "--to", cache, url+"#checks.vm-a.driver", url+"#checks.dep"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NIX_STATE_DIR", t.TempDir())
	nix.Args = []string{"--option", "substituters", cache, "--option", "require-sigs", "false"}
	plan, err = nix.Plan(t.Context(), url+"#checks")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"driver-a"}, names(plan.Tests[0].Fetch)); diff != "" || len(plan.Tests[0].Build) != 0 {
		t.Errorf("%+v\n%s", plan.Tests[0], diff)
	}
	if diff := cmp.Diff([]string{"vm-test-run-b"}, names(plan.Tests[1].Build)); diff != "" || !cmp.Equal(names(plan.Tests[1].Fetch), []string{"dep"}) {
		t.Errorf("%+v\n%s", plan.Tests[1], diff)
	}
}

func TestPlanErrors(t *testing.T) {
	needNix(t)
	url := flake(t, planOutputs)
	var log strings.Builder
	nix := Nix{Log: &log}
	if _, err := nix.Plan(t.Context(), url+"#none"); !errors.Is(err, ErrNoTests) {
		t.Errorf("no tests: %v", err)
	}
	_, err := nix.Plan(t.Context(), url+"#broken")
	if want := "evaluating " + url + "#broken: x: nix eval: out of order"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if !strings.Contains(log.String(), "out of order") {
		t.Errorf("nix's trace is not in the log: %q", log.String())
	}
	_, err = nix.Plan(t.Context(), url+"#nope")
	if nixErr, ok := errors.AsType[*NixError](err); !ok || !strings.Contains(nixErr.Message, "does not provide attribute") {
		t.Errorf("missing attribute: %v", err)
	}
}

func TestBuild(t *testing.T) {
	needNix(t)
	url := flake(t, `
  good = drv "run-vm-tests" { manifest = builtins.toJSON {
      version = 1; system = "x86_64-linux"; closureInfo = "/nix/store/closure-info";
      tests.vm-a = { driver = "/nix/store/d/bin/nixos-test-driver"; globalTimeoutSeconds = 60; };
    }; args = [ "-c" "PATH=/usr/bin:/bin; echo making it >&2; mkdir $out; echo \"$manifest\" > $out/manifest.json" ]; };
  empty = drv "empty" { args = [ "-c" "PATH=/usr/bin:/bin; mkdir $out" ]; };
  bad = drv "bad" { args = [ "-c" "echo no luck >&2; exit 1" ]; };`)
	var log strings.Builder
	nix := Nix{Log: &log}
	link := filepath.Join(t.TempDir(), "result")
	result, err := nix.Build(t.Context(), url+"#good", link)
	if err != nil {
		t.Fatal(err)
	}
	if result.Path != filepath.Join(link, "manifest.json") || !cmp.Equal(result.Manifest.Names(), []string{"vm-a"}) {
		t.Errorf("%+v", result)
	}
	if !strings.Contains(log.String(), "making it") {
		t.Errorf("the builder's output is not in the log: %q", log.String())
	}
	if _, err := nix.Build(t.Context(), url+"#empty", link); err == nil || !strings.Contains(err.Error(), "result holds none\nhint: build .#run-vm-tests-with-cache") {
		t.Errorf("no manifest: %v", err)
	}
	if _, err := nix.Build(t.Context(), url+"#bad", link); err == nil || !strings.Contains(err.Error(), "nix build: builder for '") {
		t.Errorf("failing build: %v", err)
	}
}

// TestBuildInterrupted ends the context in the middle of a build: nix and the
// builder have to end, too.
func TestBuildInterrupted(t *testing.T) {
	needNix(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	nix := Nix{Log: writerFunc(func(p []byte) {
		if strings.Contains(string(p), "builder is up") {
			cancel(errors.New("enough"))
		}
	})}
	url := flake(t, `slow = drv "slow" { args = [ "-c" "PATH=/usr/bin:/bin; echo builder is up >&2; exec sleep 1000" ]; };`)
	start := time.Now()
	_, err := nix.Build(ctx, url+"#slow", filepath.Join(t.TempDir(), "result"))
	if err == nil || !strings.HasSuffix(err.Error(), "enough") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > killDelay {
		t.Errorf("took %v", took)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

func TestNoNix(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	var nix Nix
	if _, err := nix.Plan(t.Context(), ".#checks"); !errors.Is(err, ErrNoNix) {
		t.Errorf("got %v", err)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "none: no such file or directory",
		dir:                        dir + " holds none",
	} {
		if _, err := Find(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	path := filepath.Join(dir, "manifest.json")
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{dir, path} {
		_, err := Find(p)
		if manifestErr, ok := errors.AsType[*suite.ManifestError](err); !ok || manifestErr.Path != path {
			t.Errorf("got %v", err)
		}
	}
}
