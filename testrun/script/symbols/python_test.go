package symbols

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// inspect prints the signatures of the classes that it is given, as JSON:
// {class: {function: [[parameter, kind, default], …]}}.
const inspect = `
import importlib, inspect, json, sys
from datetime import timedelta

def default(p):
    if p.default is p.empty:
        return ""
    if isinstance(p.default, timedelta):
        return repr(p.default.total_seconds())
    return json.dumps(p.default) if isinstance(p.default, str) else repr(p.default)

def signature(f):
    params = inspect.signature(f).parameters.values()
    return [[p.name, p.kind.name, default(p)] for p in params if p.name != "self"]

result = {}
for module, name in json.load(sys.stdin):
    try:
        owner = importlib.import_module("test_driver." + module)
        if name:
            owner = getattr(owner, name)
    except (ImportError, AttributeError) as e:
        result[name] = None
        continue
    found = result[name] = {}
    for key in dir(owner):
        value = inspect.getattr_static(owner, key)
        if inspect.isfunction(value) and (name == "" or not key.startswith("_") or key in ("__init__", "__enter__", "__exit__")):
            found[key] = signature(value)
        elif isinstance(value, property) or not key.startswith("__") and not callable(value):
            found[key] = []
json.dump(result, sys.stdout)
`

// The shim's classes have the signatures of the table, and nothing that the
// table does not tell of.
func TestPythonShim(t *testing.T) {
	python := need(t, "python3")
	shim, err := filepath.Abs("../python/shim")
	if err != nil {
		t.Fatal(err)
	}
	wanted := [][2]string{{"machine", ""}}
	for _, c := range Classes() {
		if c.Only != Starlark {
			wanted = append(wanted, [2]string{c.Module, c.Name})
		}
	}
	question, err := json.Marshal(wanted)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "-B", "-c", "import sys; sys.path.insert(0, sys.argv[1])\n"+inspect, shim)
	cmd.Stdin = strings.NewReader(string(question))
	out, err := cmd.Output()
	if err != nil {
		var stderr []byte
		if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // only Output makes it
			stderr = exit.Stderr
		}
		t.Fatalf("python3: %v\n%s", err, stderr)
	}
	var found map[string]map[string][][3]string
	if err := json.Unmarshal(out, &found); err != nil {
		t.Fatal(err)
	}
	for _, f := range Functions() {
		if f.Only == Starlark {
			continue
		}
		owner := "Driver"
		if f.Name == "retry" {
			owner = "" // of module machine
		}
		compare(t, f, owner, found[owner])
	}
	for _, c := range Classes() {
		if c.Only == Starlark {
			continue
		}
		if found[c.Name] == nil {
			t.Errorf("there is no test_driver.%s.%s", c.Module, c.Name)
			continue
		}
		known := map[string]bool{}
		for _, f := range MethodsOf(c.Name) {
			known[f.Name] = true
		}
		for _, f := range c.Methods {
			if f.Only != Starlark && f.Name != "__exit__" {
				compare(t, f, c.Name, found[c.Name])
			}
		}
		for name := range found[c.Name] {
			if isMethod := len(found[c.Name][name]) > 0; isMethod && !known[name] && c.Name != "Driver" && !strings.HasPrefix(name, "_") {
				t.Errorf("the table does not tell of %s.%s", c.Name, name)
			}
		}
	}
}

// compare reports what differs between a function of the table and the shim's.
func compare(t *testing.T, f Function, owner string, found map[string][][3]string) {
	t.Helper()
	params, ok := found[f.Name]
	if !ok {
		t.Errorf("%s.%s is missing", owner, f.Name)
		return
	}
	var want [][3]string
	star := false
	for _, p := range f.Params {
		kind := "POSITIONAL_OR_KEYWORD"
		switch {
		case p.Variadic:
			kind, star = "VAR_POSITIONAL", true
		case p.KeywordOnly || star:
			kind = "KEYWORD_ONLY"
		}
		want = append(want, [3]string{p.Name, kind, p.Default})
	}
	if !slices.Equal(want, params) {
		t.Errorf("%s.%s:\n  table %s\n  shim  %s", owner, f.Name, fmt.Sprint(want), fmt.Sprint(params))
	}
}
