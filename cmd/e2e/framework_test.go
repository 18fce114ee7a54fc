package e2e

import (
	"bufio"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const framework = "framework.nix"

// names are the words of a file, but for comments.
func names(t *testing.T, file string) []string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []string
	for s := bufio.NewScanner(f); s.Scan(); {
		line, _, _ := strings.Cut(s.Text(), "#")
		all = append(all, strings.Fields(line)...)
	}
	slices.Sort(all)
	return all
}

// TestFrameworkNames holds nix/offline/testing against the names that nixpkgs'
// framework has: it has no others, and its README lists those that it lacks.
func TestFrameworkNames(t *testing.T) {
	readme, err := os.ReadFile(top + "/nix/offline/README.md")
	if err != nil {
		t.Fatal(err)
	}
	eachNix(t, func(t *testing.T, bin string) {
		n := nixAt(t, bin)
		for attribute, file := range map[string]string{
			"options":  "testdata/nix/nixpkgs-options",
			"passthru": "testdata/nix/nixpkgs-passthru",
		} {
			var got []string
			n.eval(t, framework, attribute, &got)
			want := names(t, file)
			for _, name := range got {
				if !slices.Contains(want, name) {
					t.Errorf("%s: nixpkgs has no %s", attribute, name)
				}
			}
			for _, name := range want {
				if !slices.Contains(got, name) && !strings.Contains(string(readme), "`"+name+"`") {
					t.Errorf("%s: neither nix/offline has %s nor does its README list it as left out", attribute, name)
				}
			}
			if len(got) < 9 {
				t.Errorf("%s: only %q", attribute, got)
			}
		}
	})
}

// TestFrameworkErrors are the errors of evaluating what cannot be had.
func TestFrameworkErrors(t *testing.T) {
	eachNix(t, func(t *testing.T, bin string) {
		n := nixAt(t, bin)
		for attribute, want := range map[string]string{
			"driverless":         "nix/offline has no nixos-test-driver: import testModules.default of vm-prebuild into the test, or take its overlay",
			"inBoth":             "these names are those of nodes and of containers: machine",
			"overlaidContainers": "vm-prebuild's nixos-test-driver has no backend for containers",
			"noBackend":          "`prebuild.backend': a definition is not of type enum",
		} {
			if log := n.evalError(t, framework, attribute); !strings.Contains(log, want) {
				t.Errorf("%s: %s\nwant %s", attribute, log, want)
			}
		}
	})
}

// TestFrameworkChanges are tests made of others, as people do with nixpkgs'.
func TestFrameworkChanges(t *testing.T) {
	want := map[string]any{
		"extended":      "vm-test-run-extended",
		"extendedNodes": []any{"machine", "second"},
		"onlyNow":       "nixos-test-driver-plain",
		"twice":         true,
		"renamed":       "renamed-vm-test-run-plain",
		"again":         "renamed-vm-test-run-plain-again",
		"kept":          true,
		"forced":        "forced",
		"variables":     map[string]any{"EXTENDED": "yes"},
		"script":        "machine.start()",
		"interactive":   "nixos-test-driver-by-hand",
	}
	eachNix(t, func(t *testing.T, bin string) {
		n := nixAt(t, bin)
		var got map[string]any
		n.eval(t, framework, "changed", &got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

// TestScriptChecks builds drivers whose scripts are right, and such whose scripts
// are not: they are not built, and the error names the script's line.
func TestScriptChecks(t *testing.T) {
	wants := map[string]string{ // "" for those that are built
		"drivers.good":              "",
		"drivers.wrongType":         `test-script:2: error: "QemuMachine" has no attribute "succed"`,
		"drivers.untyped":           "",
		"drivers.unused":            "test-script:1:1: 'json' imported but unused",
		"drivers.unlinted":          "",
		"drivers.malformed":         `File "test-script", line 1`,
		"drivers.named":             "",
		"drivers.nobody":            "",
		"drivers.imports":           "",
		"drivers.wrongImport":       `test-script:2: error: Argument 1 to "greet" has incompatible type "int";`,
		"drivers.starlark":          "",
		"overlaidDrivers.good":      "",
		"overlaidDrivers.wrongType": `error: "QemuMachine" has no attribute "succed"`,
		"overlaidDrivers.imports":   "",
	}
	eachNix(t, func(t *testing.T, bin string) {
		n := nixAt(t, bin)
		for _, attribute := range slices.Sorted(maps.Keys(wants)) {
			_, log, err := n.build(t, framework, attribute)
			if want := wants[attribute]; want == "" && err != nil {
				t.Errorf("%s: %v\n%s", attribute, err, log)
			} else if want != "" && (err == nil || !strings.Contains(log, want)) {
				t.Errorf("%s: %v\n%s\nwant an error with %s", attribute, err, log, want)
			}
		}
	})
}

// TestDriverPackage overrides the overlay's package as nixpkgs' framework does.
func TestDriverPackage(t *testing.T) {
	eachNix(t, func(t *testing.T, bin string) {
		n := nixAt(t, bin)
		var p struct {
			Overridden string
			Meta       map[string]any
		}
		n.eval(t, framework, "driverPackage", &p)
		if !strings.Contains(p.Overridden, "-debian-busybox-static/bin") || strings.Contains(p.Overridden, "-debian-qemu/bin") {
			t.Errorf("qemu_pkg is not on the driver's PATH: %s", p.Overridden)
		}
		if p.Meta["mainProgram"] != "nixos-test-driver" {
			t.Errorf("%v", p.Meta)
		}
	})
}
