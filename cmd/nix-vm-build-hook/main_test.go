package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"vm-prebuild/storedb/mountns"
)

func TestMain(m *testing.M) {
	mountns.Main()
	testscript.Main(m, map[string]func(){"nix-vm-build-hook": main})
}

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script"})
}
