package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"vm-prebuild": main})
}

func TestScript(t *testing.T) {
	packed, err := filepath.Abs("../../testrun/warm/testdata/packed")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		// $PACKED has two packed states: one for all hosts, one for those with a Z80.
		Setup: func(e *testscript.Env) error {
			e.Setenv("PACKED", packed)
			return nil
		},
		// [nix] holds when there is a real Nix, which CI must have.
		Condition: func(cond string) (bool, error) {
			if cond != "nix" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			_, err := exec.LookPath("nix")
			if err != nil && os.Getenv("CI") != "" {
				return false, err
			}
			return err == nil, nil
		},
	})
}

func TestNixArgs(t *testing.T) {
	for _, tt := range []struct{ args, want []string }{
		{[]string{"plan", "--json", "--", "--store", "a b,c"}, []string{"plan", "--json", "--nix-arg=--store", "--nix-arg=a b,c"}},
		{[]string{"build", "x", "--"}, []string{"build", "x"}},
		{[]string{"list", "--", "-x"}, []string{"list", "--", "-x"}},
		{[]string{"--", "plan"}, []string{"--", "plan"}},
		{nil, nil},
	} {
		if got, err := nixArgs(nil, tt.args); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%q: got %q, want %q", tt.args, got, tt.want)
		}
	}
}
