// Package pyregexp matches with the regular expressions of Python's re module,
// which test scripts are full of: with lookaround, back-references and named
// groups. [Compile] is its entry point.
//
// The syntax is that of https://docs.python.org/3/library/re.html. Matching is
// left to regexp2, which follows .NET; Compile rewrites what is written
// differently there. Not supported are possessive quantifiers (a++), the flag L
// and \N{…}.
package pyregexp

import (
	"fmt"
	"time"

	"github.com/dlclark/regexp2"
)

// matchLimit ends a search that backtracks without end.
const matchLimit = 10 * time.Second

// Regexp is a compiled regular expression. It is safe for concurrent use.
type Regexp struct {
	source string
	re     *regexp2.Regexp
}

// Compile parses a regular expression of Python. Errors name the expression.
func Compile(source string) (*Regexp, error) {
	translated, err := translate(source)
	if err != nil {
		return nil, fmt.Errorf("regular expression %q: %w", source, err)
	}
	re, err := regexp2.Compile(translated, regexp2.None)
	if err != nil {
		return nil, fmt.Errorf("regular expression %q: %w", source, err)
	}
	re.MatchTimeout = matchLimit
	return &Regexp{source: source, re: re}, nil
}

// String returns the expression as it was given to Compile.
func (r *Regexp) String() string { return r.source }

// Search reports whether the expression matches anywhere in text, as re.search
// does. It fails when the search takes more than 10 s.
func (r *Regexp) Search(text string) (bool, error) {
	return r.SearchRunes([]rune(text))
}

// SearchRunes is Search in decoded text, for texts that grow.
func (r *Regexp) SearchRunes(text []rune) (bool, error) {
	m, err := r.re.FindRunesMatch(text)
	if err != nil {
		return false, fmt.Errorf("regular expression %q took more than %v on a text of %d characters", r.source, matchLimit, len(text))
	}
	return m != nil, nil
}
