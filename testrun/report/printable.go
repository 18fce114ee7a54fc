package report

import (
	"regexp"
	"strings"
	"unicode"
)

// escape is a control sequence of a terminal (ECMA-48). A guest's firmware
// clears the screen with one, and would clear ours.
var escape = regexp.MustCompile("\x1b(\\[[0-?]*[ -/]*[@-~]|[@-Z\\\\-~])")

// printable drops control sequences, and control characters other than tab and
// line feed, which XML cannot hold.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && unicode.IsControl(r) {
			return -1
		}
		return r
	}, escape.ReplaceAllString(s, ""))
}
