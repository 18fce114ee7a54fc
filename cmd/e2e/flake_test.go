package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Where setup.sh puts Debian 12's Nix, and what names the directory for Debian 13's.
const (
	oldNix    = "/usr/bin"
	trixieEnv = "VM_PREBUILD_TRIXIE"
)

// eachNix runs a test with Debian 12's Nix and with Debian 13's; bin is the directory
// of their commands.
func eachNix(t *testing.T, test func(t *testing.T, bin string)) {
	newer := os.Getenv(trixieEnv)
	if newer == "" {
		newer = "/var/cache/vm-prebuild/trixie"
	}
	for _, nix := range []struct{ version, bin string }{{"2.8", oldNix}, {"2.26", newer + "/bin"}} {
		t.Run(nix.version, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), filepath.Join(nix.bin, "nix"), "--version").Output()
			if err == nil && !strings.HasPrefix(string(out), "nix (Nix) "+nix.version+".") {
				t.Fatalf("%s has %s", nix.bin, out)
			}
			if err != nil && os.Getenv("CI") == "" {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			if nix.bin != oldNix {
				// Its hook for other machines is itself, which it does not find: trixie.sh
				// has it run by its loader.
				t.Setenv("NIX_CONFIG", os.Getenv("NIX_CONFIG")+"\nbuild-hook =\n")
			}
			test(t, nix.bin)
		})
	}
}

// nixOutput runs a Nix command in dir and returns what it writes to stdout.
func nixOutput(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = dir
	var log strings.Builder
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, &log)
	}
	return strings.TrimSpace(string(out))
}

// TestFlakeOutputs holds what the flake offers, on all systems, against what is
// written of it. Nothing is built.
func TestFlakeOutputs(t *testing.T) {
	need(t, manifestEnv)
	dir := tree(t)
	eachNix(t, func(t *testing.T, bin string) {
		nix := filepath.Join(bin, "nix")
		check := append([]string{"flake", "check", "path:" + dir, "--no-build"}, offline...)
		show := append([]string{"flake", "show", "path:" + dir, "--json"}, offline...)
		if bin != oldNix { // which always looks at all
			check, show = append(check, "--all-systems"), append(show, "--all-systems")
		}
		if out, err := command(t, dir, nix, check...); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		var outputs map[string]map[string]any
		if err := json.Unmarshal([]byte(nixOutput(t, dir, nix, show...)), &outputs); err != nil {
			t.Fatal(err)
		}
		linux, all := []string{"aarch64-linux", "x86_64-linux"}, []string{"aarch64-darwin", "aarch64-linux", "x86_64-darwin", "x86_64-linux"}
		for name, systems := range map[string][]string{
			"packages": all, "apps": all, "checks": all, "devShells": linux, "formatter": linux,
			"overlays": {"default"}, "templates": {"default"}, "nixosModules": {"build-hook", "test"},
		} {
			for _, system := range systems {
				if outputs[name][system] == nil {
					t.Errorf("there is no %s.%s", name, system)
				}
			}
		}
	})
}

// TestFlakeCheck builds all checks of this machine's system, which runs the example's
// tests in the sandbox.
func TestFlakeCheck(t *testing.T) {
	need(t, manifestEnv)
	dir := tree(t)
	eachNix(t, func(t *testing.T, bin string) {
		args := append([]string{"flake", "check", "path:" + dir, "-L"}, offline...)
		if out, err := command(t, dir, filepath.Join(bin, "nix"), args...); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// TestDarwin builds, runs and imports on macOS, as far as Nix can be told that it
// is there, which ends in a sentence that says where it would work.
func TestDarwin(t *testing.T) {
	need(t, manifestEnv)
	const sentence = "vm-prebuild runs on Linux, and so do its tests: "
	dir := tree(t)
	eachNix(t, func(t *testing.T, bin string) {
		nix := filepath.Join(bin, "nix")
		for _, args := range [][]string{
			{"build", "--no-link", "path:" + dir},
			{"run", "path:" + dir + "#run-vm-tests"},
			{"flake", "check", "path:" + dir},
			{"eval", "--impure", "path:" + dir + "#lib.mkVmTests", "--apply", `f:
				let pkgs = import ` + dir + `/nix/offline { system = "aarch64-darwin"; };
				in (f { inherit pkgs; tests.hello = ` + dir + `/templates/default/tests/hello.nix; }).packages.run-vm-tests-with-cache.drvPath`},
		} {
			out, err := command(t, dir, nix, append(append(args, "--system", "aarch64-darwin"), offline...)...)
			if err == nil || strings.Count(out, sentence) != 1 {
				t.Errorf("%q: %v\n%s", args, err, out)
			}
		}
	})
}

// TestTemplate makes a flake of the template, as its users do, and runs the test
// that it has.
func TestTemplate(t *testing.T) {
	need(t, manifestEnv)
	dir := tree(t)
	inputs := []string{"--override-input", "nixpkgs", "path:" + dir + "/nix/offline", "--override-input", "vm-prebuild", "path:" + dir, "--no-write-lock-file"}
	runners := map[string]bool{}
	eachNix(t, func(t *testing.T, bin string) {
		nix, project := filepath.Join(bin, "nix"), t.TempDir()
		out := nixOutput(t, project, nix, "flake", "init", "-t", "path:"+dir)
		t.Log(out)
		if out, err := command(t, project, nix, append([]string{"flake", "check", "--no-build", "path:" + project}, inputs...)...); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		nixOutput(t, project, nix, append([]string{"build", "path:" + project + "#run-vm-tests-with-cache"}, inputs...)...)
		runner, err := os.Readlink(filepath.Join(project, "result"))
		if err != nil {
			t.Fatal(err)
		}
		if runners[runner] = true; len(runners) > 1 {
			t.Fatalf("Nix 2.8 and 2.26 build different things: %v", runners)
		}
		if bin != oldNix {
			return // the same file
		}
		// Not the tests that the environment names.
		out, err = command(t, project, "env", "-u", manifestEnv, "result/bin/run-vm-tests")
		if err != nil || !strings.Contains(out, "1 passed") {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// TestWithoutFlakes says that default.nix has what the flake has, and that its
// functions can be used.
func TestWithoutFlakes(t *testing.T) {
	need(t, manifestEnv)
	dir := tree(t)
	nixpkgs := "import " + dir + "/nix/offline { }"
	eachNix(t, func(t *testing.T, bin string) {
		for _, name := range []string{"vm-prebuild", "vm-prebuild-static"} {
			derivation := nixOutput(t, dir, filepath.Join(bin, "nix-instantiate"), "--quiet", "--arg", "pkgs", nixpkgs, "-A", name)
			flakes := nixOutput(t, dir, filepath.Join(bin, "nix"), append([]string{"eval", "--raw", "path:" + dir + "#" + name + ".drvPath"}, offline...)...)
			if derivation != flakes {
				t.Errorf("%s: default.nix has %s, the flake %s", name, derivation, flakes)
			}
		}
		expression := `let pkgs = ` + nixpkgs + `; in ((import ` + dir + ` { inherit pkgs; }).lib.mkVmTests {
			inherit pkgs;
			tests.hello = ` + dir + `/templates/default/tests/hello.nix;
		}).checks.hello`
		test := nixOutput(t, dir, filepath.Join(bin, "nix-instantiate"), "--quiet", "-E", expression)
		if !strings.HasSuffix(test, "-vm-test-run-hello.drv") {
			t.Error(test)
		}
	})
}

// TestVendorHash says whether nix/vendor-hash.nix follows go.mod, and that the
// script that says so notices when it does not, and mends it.
func TestVendorHash(t *testing.T) {
	need(t, manifestEnv)
	const script = "nix/update-vendor-hash.sh"
	if out, err := command(t, top, script, "--check"); err != nil {
		t.Error(out, err)
	}
	dir := tree(t)
	file := filepath.Join(dir, "nix/vendor-hash.nix")
	right, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, hash, _ := strings.Cut(string(right), `"sha256-`)
	wrong := strings.Replace(string(right), hash[:8], "AAAAAAAA", 1)
	if err := os.WriteFile(file, []byte(wrong), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := command(t, dir, script, "--check")
	if err == nil || !strings.Contains(out, "nix/vendor-hash.nix is out of date") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := command(t, dir, script); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if mended, err := os.ReadFile(file); err != nil || string(mended) != string(right) {
		t.Errorf("%v\n%s", err, mended)
	}
}
