package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// words is a flag that takes any number of values, as argparse's nargs="*"
// does: "--vlans 1 2". The last occurrence counts. From the environment come
// words between white space.
type words []string

// Decode implements kong.MapperValue.
func (w *words) Decode(ctx *kong.DecodeContext) error {
	var text string
	if err := ctx.Scan.PopValueInto("value", &text); err != nil {
		return err
	}
	if list, ok := strings.CutSuffix(text, "\x00"); ok {
		*w = strings.Split(list, "\x00")
	} else {
		*w = strings.Fields(text)
	}
	return nil
}

// option is one way to write a long flag, without the dashes.
type option struct {
	name string
	flag *kong.Flag
}

// argparse rewrites arguments in the style of Python's argparse, which nixpkgs'
// wrappers and their users are used to, to kong's: flags may be shortened, and
// those that are [words] get one value each, in which every word ends in NUL.
// Numbers end where the name of a command follows: "--vlans 1 2 eval CODE".
func argparse(model *kong.Application, args []string) ([]string, error) {
	options := longOptions(model)
	var out []string
	list := -1       // index in out of the words flag that takes what follows
	numbers := false // are what that flag takes
	for i, arg := range args {
		if arg == "--" {
			return append(out, args[i:]...), nil
		}
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			if numbers && isCommand(model, arg) {
				list, numbers = -1, false
			}
			if list >= 0 {
				out[list] += arg + "\x00"
			} else {
				out = append(out, arg)
			}
			continue
		}
		list, numbers = -1, false
		name, isLong := strings.CutPrefix(arg, "--")
		if !isLong {
			out = append(out, arg)
			continue
		}
		name, value, hasValue := strings.Cut(name, "=")
		o, err := complete(options, name)
		if err != nil {
			return nil, err
		}
		arg = "--" + o.name
		if o.flag != nil && o.flag.Target.Type() == reflect.TypeFor[words]() {
			arg += "="
			if hasValue {
				arg += value + "\x00"
			} else {
				list, numbers = len(out), o.flag.Tag.Has("numbers")
			}
		} else if hasValue {
			arg += "=" + value
		}
		out = append(out, arg)
	}
	return out, nil
}

// complete finds the option that name is, or is the beginning of. Without one
// it is returned as it is, for kong to complain about.
//
// The options of nixpkgs' driver come first: none of ours makes ambiguous what
// is not so there.
func complete(options []option, name string) (option, error) {
	var theirs, ours []option
	for _, o := range options {
		if o.name == name {
			return o, nil
		}
		if !strings.HasPrefix(o.name, name) {
			continue
		}
		if o.flag.Tag.Has("nixpkgs") {
			theirs = append(theirs, o)
		} else {
			ours = append(ours, o)
		}
	}
	candidates := theirs
	if len(candidates) == 0 {
		candidates = ours
	}
	if len(candidates) == 0 {
		return option{name: name}, nil
	}
	for _, o := range candidates[1:] {
		// Two names of one flag are as good as one, but not --x and --no-x.
		if o.flag != candidates[0].flag || negation(o) != negation(candidates[0]) {
			return option{}, fmt.Errorf("flag --%s is ambiguous: it could be %s", name, listed(candidates))
		}
	}
	return candidates[0], nil
}

func isCommand(model *kong.Application, name string) bool {
	return slices.ContainsFunc(model.Leaves(false), func(n *kong.Node) bool { return n.Name == name })
}

func negation(o option) bool { return o.name == "no-"+o.flag.Name }

func listed(options []option) string {
	var names []string
	for _, o := range options {
		names = append(names, "--"+o.name)
	}
	return strings.Join(names, ", ")
}

// longOptions are those of all commands, in the order of their names.
func longOptions(model *kong.Application) []option {
	flags := slices.Clone(model.Flags)
	for _, n := range model.Leaves(false) {
		flags = append(flags, n.Flags...)
	}
	var options []option
	for _, f := range flags {
		options = append(options, option{f.Name, f})
		for _, alias := range f.Aliases {
			options = append(options, option{alias, f})
		}
		if f.Tag.Negatable != "" { // in the usual way
			options = append(options, option{"no-" + f.Name, f})
		}
	}
	slices.SortFunc(options, func(a, b option) int { return strings.Compare(a.name, b.name) })
	// Several commands may have a flag of one name.
	return slices.CompactFunc(options, func(a, b option) bool { return a.name == b.name })
}
