package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"vm-prebuild/storedb/mountns"
)

func TestMain(m *testing.M) {
	mountns.Main()
	testscript.Main(m, map[string]func(){"nix-closure-import": main})
}

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Condition: func(condition string) (bool, error) {
			if condition != "namespaces" {
				return false, fmt.Errorf("unknown condition %s", condition)
			}
			err := namespaces()
			if err != nil && os.Getenv("CI") != "" {
				return false, err
			}
			return err == nil, nil
		},
	})
}

// namespaces returns nil if a user may make namespaces here.
func namespaces() error {
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS}
	return cmd.Run()
}
