package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"vm-prebuild/testrun/reaper"
)

func TestMain(m *testing.M) {
	reaper.Main()
	testscript.Main(m, map[string]func(){"run-vm-tests": main})
}

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script"})
}
