package main

import (
	"slices"
	"strings"
	"testing"
)

func TestArgparse(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "",
		"--vlans 1 2 -K":         "--vlans=1 --vlans=2 -K",
		"--vlans":                "",
		"--vlans -K s.py":        "-K s.py",
		"--vlans=1 s.py":         "--vlans=1 s.py",
		"--start-scripts a b":    "--start-scripts=a --start-scripts=b",
		"--vlans 1 -- s.py":      "--vlans=1 -- s.py",
		"-o out --vm-names a -I": "-o out --vm-names=a -I",
	} {
		if got := argparse(strings.Fields(in)); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
