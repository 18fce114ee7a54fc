package symbols

import (
	"bytes"
	"fmt"
	"strings"
)

// Reference returns the page docs/scripts.md.
func Reference() []byte {
	var b bytes.Buffer
	b.WriteString(introduction)
	b.WriteString("\n## Globals\n\nBesides these, a script has its machines and VLANs (`vlan1`, …) under their own names, and as `machine` the only\nmachine that there is.\n\n")
	functionTable(&b, Functions())
	b.WriteString("\n")
	attributeTable(&b, Values())
	for _, c := range Classes() {
		fmt.Fprintf(&b, "\n## %s\n\n%s", c.Name, c.Doc)
		if c.Base != "" {
			fmt.Fprintf(&b, " Its base is `%s`.", c.Base)
		}
		if c.Only != "" {
			fmt.Fprintf(&b, " %s only.", c.Only)
		}
		fmt.Fprintf(&b, " In Python: `test_driver.%s`.\n", c.Module)
		if len(c.Attributes) > 0 {
			b.WriteString("\n")
			attributeTable(&b, c.Attributes)
		}
		if methods := visible(c.Methods); len(methods) > 0 {
			b.WriteString("\n")
			functionTable(&b, methods)
		}
	}
	return b.Bytes()
}

// visible leaves out what the language calls by itself.
func visible(all []Function) []Function {
	var v []Function
	for _, f := range all {
		if !strings.HasPrefix(f.Name, "__") {
			v = append(v, f)
		}
	}
	return v
}

func functionTable(b *bytes.Buffer, all []Function) {
	b.WriteString("| Python | Starlark | |\n|---|---|---|\n")
	for _, f := range all {
		python, starlark := call(f), "the same"
		if f.Block {
			python = "with " + python
			starlark = code(call(f.In(Starlark)))
		}
		switch f.Only {
		case Starlark:
			python, starlark = "", code(call(f))
		case Python:
			starlark = "–"
		default:
		}
		if python == "" {
			python = "–"
		} else {
			python = code(python)
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", python, starlark, notes(f))
	}
}

// call prints a function as it is called, with its result.
func call(f Function) string {
	text := fmt.Sprintf("%s(%s)", f.Name, signature(current(f), "", false))
	switch f.Result {
	case None, "NoReturn", Decorated, "AbstractContextManager[None]":
		return text
	default:
		return text + " → " + string(f.Result)
	}
}

// current leaves out parameters that are other names.
func current(f Function) Function {
	var params []Param
	for _, p := range f.Params {
		if p.For == "" {
			params = append(params, p)
		}
	}
	f.Params = params
	return f
}

func notes(f Function) string {
	parts := []string{f.Doc}
	for _, p := range f.Params {
		if p.For != "" {
			parts = append(parts, fmt.Sprintf("`%s` is an old name of `%s`.", p.Name, p.For))
		}
	}
	if f.Starlark != "" {
		parts = append(parts, "Starlark: "+f.Starlark)
	}
	if f.Deprecated != "" {
		parts = append(parts, "Deprecated: use "+f.Deprecated+".")
	}
	return strings.ReplaceAll(strings.Join(append(parts, since(f.Since)...), " "), "|", `\|`)
}

func since(release string) []string {
	switch release {
	case "":
		return nil
	case Ours:
		return []string{"*Not in nixpkgs' driver.*"}
	}
	return []string{"*Since NixOS " + release + ".*"}
}

func attributeTable(b *bytes.Buffer, all []Attribute) {
	b.WriteString("| value | type | |\n|---|---|---|\n")
	for _, a := range all {
		parts := []string{a.Doc}
		if a.Settable {
			parts = append(parts, "May be assigned to.")
		}
		if a.Only != "" {
			parts = append(parts, string(a.Only)+" only.")
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", a.Name, code(string(a.Type)), strings.Join(append(parts, since(a.Since)...), " "))
	}
}

// code is text in a cell of a table, as code.
func code(text string) string {
	return "`" + strings.ReplaceAll(text, "|", `\|`) + "`"
}

const introduction = `# What test scripts can call

<!-- Made from testrun/script/symbols by "go test ./testrun/script/symbols -update". -->

Test scripts are Python, as in nixpkgs, or Starlark, which needs no Python: files whose names end in ` + "`.star`" + `, or
` + "`--language starlark`" + `. Go programs use package ` + "`testrun`" + `, as ` + "`examples/gotest`" + ` shows.

A duration is, in Python, a ` + "`datetime.timedelta`" + ` or a number of seconds (of which nixpkgs' newest driver warns, and so do we), in Starlark a ` + "`time.duration`" + ` such as ` + "`5 * time.minute`" + `.
Types are those of Python. What an expectation that is not met raises is a ` + "`RequestedAssertionFailed`" + `; a machine that cannot do
what it was asked, a ` + "`MachineError`" + `.

## Starlark

The language is a small Python: [its specification](https://github.com/google/starlark-go/blob/master/doc/spec.md) says all.
Here it has sets, ` + "`while`" + `, control flow at top level, globals that are assigned to again, and recursion. What is missing, and what
stands for it:

| Python | Starlark |
|---|---|
| ` + "`with subtest(\"x\"):`" + ` and a block | ` + "`subtest(\"x\", fn)`" + ` with a function, which may return a value |
| f-strings | ` + "`\"%s is %d\" % (name, n)`, `\"{} is {}\".format(name, n)`" + ` |
| ` + "`assert`" + `, ` + "`t.assertEqual`" + ` | ` + "`assert_true`, `assert_equal`, `assert_in`, `fail`" + ` |
| ` + "`try`/`except`" + ` | ` + "`value, error = catch(fn)`" + ` |
| threads | ` + "`parallel(fn, fn, …)`" + ` |
| decorators, classes | functions, ` + "`struct(…)`" + ` |
| ` + "`import`" + ` | ` + "`load(\"helpers.star\", \"name\")`" + ` of files in the script's directory or below; their globals cannot be changed by those who load them |
| ` + "`sys.exit(n)`" + ` | ` + "`exit(n)`" + ` |
`
