package main

import (
	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/testrun/script/symbols"
)

// stubsCmd writes what type checkers of Python scripts need.
type stubsCmd struct {
	Dir string `arg:"" help:"Directory to write them to; it is made if it is not there."`
}

// Examples implements cli's interface.
func (c *stubsCmd) Examples() []cli.Example {
	return []cli.Example{{
		Text:    "check a script whose machine is called server",
		Command: "nixos-test-run stubs . && (cat test-script-prepend.py; echo 'server: QemuMachine'; cat script.py) >typed.py && MYPYPATH=. mypy typed.py",
	}}
}

// Run implements kong's command interface.
func (c *stubsCmd) Run() error { return symbols.WriteStubs(c.Dir) }
