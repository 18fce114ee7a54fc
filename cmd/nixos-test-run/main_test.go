package main

import (
	"os"
	"os/exec"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"vm-prebuild/testrun/reaper"
)

func TestMain(m *testing.M) {
	reaper.Main()
	testscript.Main(m, map[string]func(){"nixos-test-run": main, "nixos-test-driver": main, generateName: main})
}

// TestScript has the command lines that need no guest; cmd/e2e has the others.
func TestScript(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_RUNTIME_DIR", env.WorkDir)
			return nil
		},
	})
}
