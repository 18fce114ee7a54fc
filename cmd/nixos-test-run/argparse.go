package main

import (
	"slices"
	"strings"
)

// listFlags take any number of values, as argparse's nargs="*" does:
// "--vlans 1 2".
var listFlags = []string{"--start-scripts", "--vm-names", "--vm-start-scripts", "--vlans"}

// argparse rewrites arguments in the style of Python's argparse, which nixpkgs'
// wrappers up to 25.11 use, to kong's: a flag is repeated for each value.
func argparse(args []string) []string {
	var out []string
	list := ""
	for i, a := range args {
		switch {
		case a == "--":
			return append(out, args[i:]...)
		case slices.Contains(listFlags, a):
			list = a
		case strings.HasPrefix(a, "-"):
			list = ""
			out = append(out, a)
		case list != "":
			out = append(out, list+"="+a)
		default:
			out = append(out, a)
		}
	}
	return out
}
