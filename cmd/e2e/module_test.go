package e2e

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files of testdata/nix")

// nix builds the files of testdata/nix.
type nix struct {
	bin  string   // directory of its programs
	root string   // in front of the store paths that it builds
	args []string // of its programs
}

// nixAt returns the Nix of which bin has the programs. Debian 13's has a store of its
// own: what the other has built, it would take as it is.
func nixAt(t *testing.T, bin string) nix {
	t.Helper()
	need(t, binEnv)
	if bin == oldNix {
		return nix{bin: bin}
	}
	root, err := os.MkdirTemp("", "e2e-store")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	return nix{bin: bin, root: root, args: []string{"--store", root}}
}

// started is when the tests began: what makes tests that Nix runs anew.
var started = time.Now().UnixNano()

func (n nix) command(t *testing.T, program, file string, args ...string) *exec.Cmd {
	t.Helper()
	all := []string{filepath.Join("testdata/nix", file), "--argstr", "bin", need(t, binEnv), "--argstr", "now", fmt.Sprint(started)}
	return exec.CommandContext(t.Context(), filepath.Join(n.bin, program), slices.Concat(all, args, n.args)...)
}

// run runs a program of Nix on a file of testdata/nix. Its standard output and what
// else it said are returned.
func (n nix) run(t *testing.T, program, file string, args ...string) (stdout, log string, err error) {
	t.Helper()
	cmd := n.command(t, program, file, args...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err = cmd.Run()
	return strings.TrimSpace(out.String()), said.String(), err
}

// eval evaluates an attribute to JSON.
func (n nix) eval(t *testing.T, file, attribute string, v any) {
	t.Helper()
	out, log, err := n.run(t, "nix-instantiate", file, "--eval", "--strict", "--json", "-A", attribute)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		t.Fatal(err)
	}
}

// evalError returns how evaluating an attribute fails.
func (n nix) evalError(t *testing.T, file, attribute string) string {
	t.Helper()
	out, log, err := n.run(t, "nix-instantiate", file, "--eval", "--strict", "--json", "-A", attribute)
	if err == nil {
		t.Fatalf("%s is %s; want an error", attribute, out)
	}
	return log
}

// build builds an attribute and returns where its output is, and the log.
func (n nix) build(t *testing.T, file, attribute string) (result, log string, err error) {
	t.Helper()
	out, log, err := n.run(t, "nix-build", file, "--no-out-link", "-A", attribute)
	return n.root + out, log, err
}

var storeHash = regexp.MustCompile(`/nix/store/[0-9a-z]{32}-`)

func withoutHashes(text string) string { return storeHash.ReplaceAllString(text, "/nix/store/HASH-") }

// generation is what testdata/nix/generations.nix says of a release.
type generation struct {
	Drivers      map[string]string
	Environments map[string]map[string]any
	Passthru     []string
	Meta         map[string]any
}

// The module does the same in the test framework of every release of nixpkgs: the
// wrapper of the driver, its configuration, and the derivations.
func TestModuleGenerations(t *testing.T) {
	eachNix(t, func(t *testing.T, bin string) {
		n := nixAt(t, bin)
		for _, release := range []string{"24.05", "24.11", "25.05", "25.11", "26.05", "26.11"} {
			t.Run(release, func(t *testing.T) {
				const file = "generations.nix"
				attribute := fmt.Sprintf("%q.golden", release)
				var g generation
				n.eval(t, file, attribute, &g)
				if _, log, err := n.build(t, file, attribute+".drivers"); err != nil {
					t.Fatalf("%v\n%s", err, log)
				}
				compareGolden(t, release, n.describe(t, g))
			})
		}
		log := n.evalError(t, "generations.nix", `"26.05".containers`)
		if !strings.Contains(log, "test golden: vm-prebuild has no backend for containers, and the test has box\n") ||
			!strings.Contains(log, "hint: make them nodes") {
			t.Errorf("containers: %s", log)
		}
		var accel string
		n.eval(t, "generations.nix", `"26.11".forced`, &accel)
		if accel != "kvm" {
			t.Errorf("qemu.forceAccel made prebuild.accel %q, want kvm", accel)
		}
	})
}

// describe is the text that a golden file holds.
func (n nix) describe(t *testing.T, g generation) string {
	t.Helper()
	var text strings.Builder
	section := func(name, body string) { fmt.Fprintf(&text, "-- %s --\n%s\n", name, strings.TrimRight(body, "\n")) }
	section("passthru", strings.Join(g.Passthru, " "))
	section("meta", fmt.Sprint(g.Meta))
	for _, name := range slices.Sorted(maps.Keys(g.Drivers)) {
		wrapper, err := os.ReadFile(n.root + g.Drivers[name] + "/bin/nixos-test-driver")
		if err != nil {
			t.Fatal(err)
		}
		section("wrapper, "+name, string(wrapper))
		path := regexp.MustCompile(`/nix/store/[^ '"]*\.json`).Find(wrapper)
		config, err := os.ReadFile(n.root + string(path))
		if err != nil {
			t.Fatal(err)
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, config, "", "  "); err != nil {
			t.Fatal(err)
		}
		section("configuration, "+name, indented.String())
		inner := regexp.MustCompile(`/nix/store/[^ '"]*/bin/nixos-test-driver`).Find(wrapper)
		wrapped, err := os.ReadFile(n.root + string(inner))
		if err != nil {
			t.Fatal(err)
		}
		section("what it wraps, "+name, string(wrapped))
	}
	for _, name := range slices.Sorted(maps.Keys(g.Environments)) {
		var body strings.Builder
		for _, variable := range slices.Sorted(maps.Keys(g.Environments[name])) {
			value := fmt.Sprint(g.Environments[name][variable])
			if strings.Contains(value, "\n") {
				value = "\n" + value
			}
			fmt.Fprintf(&body, "%s = %s\n", variable, strings.TrimRight(value, "\n"))
		}
		section("environment, "+name, body.String())
	}
	return withoutHashes(text.String())
}

func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata/nix/golden", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil { //nolint:gosec // a file of the repository
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s (-want +got; -update writes it):\n%s", file, diff)
	}
}
