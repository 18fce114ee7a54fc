package storedb

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nix-community/go-nix/pkg/derivation"
)

const (
	outPath = StoreDir + "/h49lgbknv1fggzyb77p6d3ag1frnz354-multi"
	devPath = StoreDir + "/cnr8n8g7k3l7913d10wbs7mk11byk3qm-multi-dev"
)

func TestParseOutputs(t *testing.T) {
	allowUnexported := cmp.AllowUnexported(output{})
	tests := []struct {
		name, derivation string
		want             []output
		err              string
	}{
		{"one", `Derive([("out","` + outPath + `","","")],[],[],"x","/bin/sh",[],[])`, []output{{"out", outPath}}, ""},
		{"two, unsorted", `Derive([("out","` + outPath + `","",""),("dev","` + devPath + `","","")],`, []output{{"dev", devPath}, {"out", outPath}}, ""},
		{"fixed", `Derive([("out","` + outPath + `","r:sha256","e3b0")],`, []output{{"out", outPath}}, ""},
		{"floating", `Derive([("dev","","r:sha256",""),("out","","r:sha256","")],`, nil, ""},
		{"impure", `Derive([("out","","r:sha256","impure")],`, nil, ""},
		{"deferred", `Derive([("out","","","")],`, nil, ""},
		{"dynamic", `DrvWithVersion("xp-dyn-drv",[("out","` + outPath + `","","")],`, []output{{"out", outPath}}, ""},
		{"escaped", `Derive([("\o\ut\"\\\n","` + outPath + `","","")],`, []output{{"out\"\\\n", outPath}}, ""},

		{"nothing", ``, nil, "not a derivation: it ends before its outputs do: unexpected EOF"},
		{"another file", `hello, world`, nil, `not a derivation: 'h' where "Derive([" is expected`},
		{"no outputs", `Derive([],[],[],"x","/bin/sh",[],[])`, nil, `not a derivation: ']' where "(" is expected`},
		{"unknown version", `DrvWithVersion("2",[("out"`, nil, `a derivation of unknown version "2"`},
		{"cut off", `Derive([("out","` + outPath + `","","")`, nil, "not a derivation: it ends before its outputs do: unexpected EOF"},
		{"cut off in a string", `Derive([("ou`, nil, "not a derivation: it ends before its outputs do: unexpected EOF"},
		{"cut off in an escape", `Derive([("ou\`, nil, "not a derivation: it ends before its outputs do: unexpected EOF"},
		{"three fields", `Derive([("out","` + outPath + `","")],`, nil, `not a derivation: ')' where "," is expected`},
		{"five fields", `Derive([("out","` + outPath + `","","","")],`, nil, `not a derivation: ',' where ")" is expected`},
		{"no comma", `Derive([("out","` + outPath + `","","")("dev"`, nil, `not a derivation: '(' after an output`},
		{"space", `Derive( [("out"`, nil, `not a derivation: ' ' where "[" is expected`},
		{"twice", `Derive([("out","` + outPath + `","",""),("out","` + devPath + `","","")],`, nil, `output "out" has no name of its own`},
		{"nameless", `Derive([("","` + outPath + `","","")],`, nil, `output "" has no name of its own`},
		{"path elsewhere", `Derive([("out","/nix/store/../etc","","")],`, nil, `output "out": "/nix/store/../etc" is not a store path: it has more than one component below /nix/store`},
		{"endless string", `Derive([("` + strings.Repeat("x", 1<<20), nil, "not a derivation: a string has more than 1024 bytes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseOutputs(strings.NewReader(test.derivation))
			if diff := cmp.Diff(test.want, got, allowUnexported); diff != "" {
				t.Error(diff)
			}
			if message := errorText(err); message != test.err {
				t.Errorf("got  %s\nwant %s", message, test.err)
			}
		})
	}
	if _, err := parseOutputs(errorReader{}); !errors.Is(err, os.ErrPermission) {
		t.Errorf("reading fails: %v", err)
	}
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, os.ErrPermission }

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// What is read of derivations that Nix has made is what go-nix's parser reads,
// which knows neither several floating outputs nor dynamic derivations.
func TestParseOutputsOfNix(t *testing.T) {
	store := filepath.Join(t.TempDir(), "store")
	expression := `let d = a: derivation ({ system = "x86_64-linux"; builder = "/bin/sh"; } // a); in [
		(d { name = "plain"; })
		(d { name = "multi"; outputs = [ "out" "dev" "lib" ]; })
		(d { name = "attrs"; __structuredAttrs = true; a.b = [ 1 "x\ny\"z\\" ]; })
		(d { name = "fixed"; outputHashAlgo = "sha256"; outputHashMode = "recursive";
			outputHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"; })
		(d { name = "floating"; __contentAddressed = true; outputHashAlgo = "sha256"; outputHashMode = "recursive"; })
	]`
	for file := range strings.FieldsSeq(nix(t, "nix-instantiate", "--option", "experimental-features", "ca-derivations", "--store", store, "--expr", expression)) {
		contents := string(read(t, store, file))
		got, err := parseOutputs(strings.NewReader(contents))
		check(t, err)
		want, err := derivation.ReadDerivation(strings.NewReader(contents))
		check(t, err)
		n := 0
		for name, o := range want.Outputs {
			if o.Path != "" {
				n++
				if !slices.Contains(got, output{name, o.Path}) {
					t.Errorf("%s: output %s is missing", file, name)
				}
			}
		}
		if n != len(got) {
			t.Errorf("%s: %d outputs, want %d", file, len(got), n)
		}
	}
}

func FuzzParseOutputs(f *testing.F) {
	for _, version := range []string{"nix-2.8", "nix-2.26"} {
		seed, err := os.ReadFile("testdata/" + version + "/result.drv")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(seed))
	}
	f.Add(`DrvWithVersion("xp-dyn-drv",[("a\"","","r:sha256","")],`)
	f.Fuzz(func(t *testing.T, contents string) {
		outputs, err := parseOutputs(io.LimitReader(strings.NewReader(contents), 1<<16))
		if err != nil && outputs != nil {
			t.Error("outputs and an error")
		}
		names := map[string]bool{}
		for _, o := range outputs {
			if names[o.name] || CheckStorePath(o.path) != nil {
				t.Errorf("outputs %q", outputs)
			}
			names[o.name] = true
		}
	})
}
