package starlark

import (
	"fmt"
	"regexp"

	"go.starlark.net/starlark"
)

// regularExpressions are the functions of the module re, with Go's syntax. Its
// inline flags (?i), (?m), (?s) are Python's.
func regularExpressions() starlark.StringDict {
	type find = func(re *regexp.Regexp, text string) starlark.Value
	function := func(name string, f find) *starlark.Builtin {
		return starlark.NewBuiltin(name, func(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			var pattern, text string
			if err := starlark.UnpackArgs(b.Name(), args, kwargs, "pattern", &pattern, "text", &text); err != nil {
				return nil, err
			}
			re, err := regexp.Compile(pattern)
			if err != nil {
				return nil, fmt.Errorf("re.%s: %w", b.Name(), err)
			}
			return f(re, text), nil
		})
	}
	return starlark.StringDict{
		"search": function("search", func(re *regexp.Regexp, text string) starlark.Value {
			return groups(text, re.FindStringSubmatchIndex(text))
		}),
		"match": function("match", func(re *regexp.Regexp, text string) starlark.Value {
			found := re.FindStringSubmatchIndex(text)
			if found != nil && found[0] != 0 {
				found = nil
			}
			return groups(text, found)
		}),
		"findall": function("findall", func(re *regexp.Regexp, text string) starlark.Value {
			return findAll(re, text)
		}),
		"sub": starlark.NewBuiltin("sub", func(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			var pattern, replacement, text string
			if err := starlark.UnpackArgs(b.Name(), args, kwargs, "pattern", &pattern, "replacement", &replacement, "text", &text); err != nil {
				return nil, err
			}
			re, err := regexp.Compile(pattern)
			if err != nil {
				return nil, fmt.Errorf("re.%s: %w", b.Name(), err)
			}
			return starlark.String(re.ReplaceAllString(text, pythonGroups.ReplaceAllString(dollars.ReplaceAllString(replacement, "$$$$"), "$${$1}"))), nil
		}),
	}
}

// Python's replacements call group 1 \1; Go's, ${1}.
var (
	pythonGroups = regexp.MustCompile(`\\(\d+)`)
	dollars      = regexp.MustCompile(`\$`)
)

// groups returns the match and its groups; None where there is none.
func groups(text string, at []int) starlark.Value {
	if at == nil {
		return starlark.None
	}
	all := make([]starlark.Value, len(at)/2)
	for i := range all {
		all[i] = starlark.None
		if at[2*i] >= 0 {
			all[i] = starlark.String(text[at[2*i]:at[2*i+1]])
		}
	}
	return starlark.NewList(all)
}

// findAll returns the matches, or their groups, as Python's re.findall does.
func findAll(re *regexp.Regexp, text string) starlark.Value {
	var all []starlark.Value
	for _, found := range re.FindAllStringSubmatch(text, -1) {
		switch len(found) {
		case 1:
			all = append(all, starlark.String(found[0]))
		case 2:
			all = append(all, starlark.String(found[1]))
		default:
			tuple := make(starlark.Tuple, len(found)-1)
			for i, group := range found[1:] {
				tuple[i] = starlark.String(group)
			}
			all = append(all, tuple)
		}
	}
	return starlark.NewList(all)
}
