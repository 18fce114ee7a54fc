// Package pyregexp matches with the regular expressions of Python's re module,
// which test scripts are full of: with lookaround, back-references and named
// groups. [Compile] is its entry point.
//
// The syntax is that of https://docs.python.org/3/library/re.html. Expressions
// that Go's regexp can match are left to it, as it takes time in proportion to
// the text; all others to regexp2, which backtracks as Python does and follows
// .NET. Compile rewrites what is written differently there. Not supported are
// possessive quantifiers (a++), the flag L and \N{…}.
package pyregexp

import (
	"fmt"
	"regexp"
	"time"

	"github.com/dlclark/regexp2"
)

// matchLimit ends a search that backtracks without end.
const matchLimit = 10 * time.Second

// Regexp is a compiled regular expression. It is safe for concurrent use.
type Regexp struct {
	source string
	linear *regexp.Regexp // nil where only re can do it
	re     *regexp2.Regexp
}

// Compile parses a regular expression of Python. Errors name the expression.
func Compile(source string) (*Regexp, error) {
	translated, err := translate(source, false)
	if err != nil {
		return nil, fmt.Errorf("regular expression %q: %w", source, err)
	}
	re, err := regexp2.Compile(translated, regexp2.None)
	if err != nil {
		return nil, fmt.Errorf("regular expression %q: %w", source, err)
	}
	re.MatchTimeout = matchLimit
	r := &Regexp{source: source, re: re}
	if translated, err := translate(source, true); err == nil {
		if linear, err := regexp.Compile(translated); err == nil {
			r.linear = linear
		}
	}
	return r, nil
}

// String returns the expression as it was given to Compile.
func (r *Regexp) String() string { return r.source }

// Search reports whether the expression matches anywhere in text, as re.search
// does. It fails when the search takes more than 10 s.
func (r *Regexp) Search(text string) (bool, error) {
	if r.linear != nil {
		return r.linear.MatchString(text), nil
	}
	return r.backtrack(text)
}

// SearchBytes is Search in UTF-8, for texts that grow.
func (r *Regexp) SearchBytes(text []byte) (bool, error) {
	if r.linear != nil {
		return r.linear.Match(text), nil
	}
	return r.backtrack(string(text))
}

func (r *Regexp) backtrack(text string) (bool, error) {
	ok, err := r.re.MatchString(text)
	if err != nil {
		return false, fmt.Errorf("regular expression %q took more than %v on a text of %d bytes", r.source, matchLimit, len(text))
	}
	return ok, nil
}
