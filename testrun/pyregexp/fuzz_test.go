package pyregexp

import (
	"testing"
	"time"
	"unicode/utf8"
)

// FuzzEngines has both engines search for the same.
func FuzzEngines(f *testing.F) {
	for _, pattern := range []string{`a|b`, `^a$`, `\d\W[\s_]`, `(?P<x>a)(?P=x)`, `(?i)É`, `[^]a]`, `a{,2}b`, `(?s).\Z`, `(?m)$`, `a(?!b)`} {
		f.Add(pattern, "ab1 é\n")
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > 40 || len(text) > 40 || !utf8.ValidString(text) || !utf8.ValidString(pattern) {
			return // backtracking may take long, which is not the question
		}
		re, err := Compile(pattern)
		if err != nil || re.linear == nil {
			return
		}
		re.re.MatchTimeout = time.Second
		slow, err := re.backtrack(text)
		if err != nil {
			return
		}
		if fast, _ := re.Search(text); fast != slow {
			t.Fatalf("%q in %q: %v when searched in linear time (%s), %v by backtracking (%s)", pattern, text, fast, re.linear, slow, re.re)
		}
	})
}
