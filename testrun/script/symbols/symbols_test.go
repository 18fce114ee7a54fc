package symbols

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden files")

// need returns the path of a program; without it, the test is skipped, or
// fails in CI.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return path
}

func scripts(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts %s: %v", pattern, err)
	}
	return paths
}

// mypy checks scripts as nixpkgs' driver.nix does, with the stubs in dir, and
// returns what it says of each by its base name.
func mypy(t *testing.T, dir string, scripts ...string) map[string]string {
	t.Helper()
	args := []string{"--no-implicit-optional", "--no-color-output", "--no-error-summary", "--cache-dir", filepath.Join(dir, "cache")}
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		typed := "typed_" + filepath.Base(script)
		if err := os.WriteFile(filepath.Join(dir, typed), append([]byte(Preamble([]string{"machine"}, []int{1})), text...), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, typed)
	}
	cmd := exec.CommandContext(t.Context(), need(t, "mypy"), args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "MYPYPATH="+dir)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatalf("mypy: %v\n%s", err, out)
	}
	said := map[string]string{}
	for line := range strings.Lines(string(out)) {
		file, _, _ := strings.Cut(line, ":")
		said[strings.TrimSuffix(strings.TrimPrefix(file, "typed_"), ".py")] += line
	}
	return said
}

// Right scripts pass the type checker with our stubs, wrong ones do not.
func TestTypeChecker(t *testing.T) {
	need(t, "mypy")
	dir := t.TempDir()
	if err := WriteStubs(dir); err != nil {
		t.Fatal(err)
	}
	wrong := map[string]string{
		"method":     `"QemuMachine" has no attribute "succeeds"`,
		"parameter":  `Unexpected keyword argument "time_out" for "wait_for_unit"`,
		"type":       `Argument 1 to "wait_for_open_port" of "BaseMachine" has incompatible type "str"; expected "int"`,
		"positional": `Missing positional argument "target" in call to "copy_from_host"`,
		"result":     `Incompatible types in assignment (expression has type "str", variable has type "int")`,
		"global":     `Name "nobody" is not defined`,
		"condition":  `"Condition" has no attribute "await_it"`,
	}
	good, bad := scripts(t, "testdata/scripts/good/*.py"), scripts(t, "testdata/scripts/bad/*.py")
	said := mypy(t, dir, append(good, bad...)...)
	for _, script := range append(good, bad...) {
		name := strings.TrimSuffix(filepath.Base(script), ".py")
		switch want := wrong[name]; {
		case want == "" && said[name] != "":
			t.Errorf("%s is right, and mypy says:\n%s", name, said[name])
		case want != "" && !strings.Contains(said[name], want):
			t.Errorf("%s: mypy says:\n%s\nwant %s", name, said[name], want)
		}
	}
	// The stubs are right themselves.
	cmd := exec.CommandContext(t.Context(), need(t, "mypy"), "--strict", "--cache-dir", filepath.Join(dir, "cache"), "-p", "test_driver")
	cmd.Env = append(os.Environ(), "MYPYPATH="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("stubs: %v\n%s", err, out)
	}
}

// Linters take the list of globals, as nixpkgs' driver.nix passes it.
func TestLinter(t *testing.T) {
	pyflakes := need(t, "pyflakes3")
	for _, tc := range []struct{ script, want string }{
		{"testdata/scripts/good/features.py", ""},
		{"testdata/scripts/bad/global.py", "undefined name 'nobody'"},
	} {
		cmd := exec.CommandContext(t.Context(), pyflakes, tc.script)
		cmd.Env = append(os.Environ(), "PYFLAKES_BUILTINS="+strings.Join(append(DriverSymbols(), "machine", "vlan1"), ","))
		out, err := cmd.CombinedOutput()
		if (err == nil) != (tc.want == "") || !strings.Contains(string(out), tc.want) {
			t.Errorf("%s: %v\n%s", tc.script, err, out)
		}
	}
}

// golden compares text with a file, or writes it.
func golden(t *testing.T, path string, text []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, text, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(text)); diff != "" {
		t.Errorf("%s differs; write it with go test ./testrun/script/symbols -update (-want +got):\n%s", path, diff)
	}
}

func TestReferencePage(t *testing.T) {
	golden(t, "../../../docs/scripts.md", Reference())
}

func TestPreamble(t *testing.T) {
	text := Preamble([]string{"web", "db_1"}, []int{1, 7})
	for _, line := range []string{"    start_all,\n", "    t,\n", "\nweb: QemuMachine\ndb_1: QemuMachine\nvlan1: VLan\nvlan7: VLan\n"} {
		if !strings.Contains(text, line) {
			t.Errorf("the preamble lacks %q", line)
		}
	}
}

// What the table says must make sense to those who read it.
func TestTable(t *testing.T) {
	functions := map[string][]Function{"": Functions()}
	for _, c := range Classes() {
		functions[c.Name] = c.Methods
		if c.Doc == "" || c.Module == "" {
			t.Errorf("class %s has no documentation or module", c.Name)
		}
		for _, a := range c.Attributes {
			if a.Doc == "" {
				t.Errorf("%s.%s has no documentation", c.Name, a.Name)
			}
		}
	}
	for class, all := range functions {
		seen := map[string]bool{}
		for _, f := range all {
			if seen[f.Name] {
				t.Errorf("%s.%s is there twice", class, f.Name)
			}
			seen[f.Name] = true
			if f.Doc == "" && !strings.HasPrefix(f.Name, "__") || f.Result == "" {
				t.Errorf("%s.%s has no documentation or result", class, f.Name)
			}
			checkParams(t, class+"."+f.Name, f.In(Starlark).Params)
			checkParams(t, class+"."+f.Name, f.Params)
		}
	}
}

func checkParams(t *testing.T, name string, params []Param) {
	t.Helper()
	defaults, keywords := false, false
	for _, p := range params {
		if p.For != "" {
			found := false
			for _, other := range params {
				found = found || other.Name == p.For
			}
			if !found || p.Default == "" {
				t.Errorf("%s: parameter %s is another name of %s", name, p.Name, p.For)
			}
		}
		switch {
		case p.KeywordOnly:
			keywords = true
		case keywords, p.Default == "" && defaults:
			t.Errorf("%s: parameter %s is out of order", name, p.Name)
		case p.Default != "":
			defaults = true
		}
	}
}

func TestWriteStubsThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteStubs(file); err == nil || !strings.HasPrefix(err.Error(), "stubs of test_driver: ") {
		t.Errorf("error %v", err)
	}
}

func TestReferenceNamesAll(t *testing.T) {
	page := Reference()
	for _, name := range DriverSymbols() {
		if !bytes.Contains(page, []byte("`"+name)) {
			t.Errorf("the page lacks %s", name)
		}
	}
}
