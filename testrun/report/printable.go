package report

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// escape is a control sequence of a terminal (ECMA-48). A guest's firmware
// clears the screen with one, and would clear ours.
var escape = regexp.MustCompile("\x1b(\\[[0-?]*[ -/]*[@-~]|[@-Z\\\\-~])")

// printable drops control sequences, and control characters other than tab and
// line feed, which XML cannot hold.
func printable(s string) string {
	if plain(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && unicode.IsControl(r) || r == '\uFFFE' || r == '\uFFFF' {
			return -1
		}
		return r
	}, escape.ReplaceAllString(s, ""))
}

// plain reports whether s is as printable as most lines are: ASCII.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\n' && c != '\t' || c >= 0x7f {
			return false
		}
	}
	return true
}

// cut shortens s to at most limit bytes and an ellipsis.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "…"
}

// clean is the beginning of s, printable. It costs no more than limit bytes do.
func clean(s string, limit int) string {
	return printable(cut(s, limit))
}
