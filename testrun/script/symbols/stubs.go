package symbols

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// WriteStubs writes into dir, which must exist, what type checkers need for
// Python test scripts:
//
//   - test_driver/, a package of stubs (PEP 561) with the modules that scripts
//     import, for $MYPYPATH or a site-packages directory;
//   - test-script-prepend.py, to be put in front of a script with its machines
//     and VLANs (see [Preamble]), as nixpkgs' driver.nix does.
func WriteStubs(dir string) error {
	files := stubs()
	files["test-script-prepend.py"] = Preamble(nil, nil)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return fmt.Errorf("stubs of test_driver: %w", err)
		}
		if err := os.WriteFile(path, []byte(files[name]), 0o666); err != nil {
			return fmt.Errorf("stubs of test_driver: %w", err)
		}
	}
	return nil
}

// Preamble declares the globals of a Python script, those of the given
// machines (Python names) and VLANs included.
func Preamble(machines []string, vlans []int) string {
	var b strings.Builder
	b.WriteString("# The globals of a test script, for type checkers.\n")
	b.WriteString("import os\nfrom unittest import TestCase\n\n")
	b.WriteString("from test_driver.machine import BaseMachine, Machine, NspawnMachine, QemuMachine\n")
	b.WriteString("from test_driver.symbols import (\n")
	for _, f := range Functions() {
		if f.Only != Starlark {
			fmt.Fprintf(&b, "    %s,\n", f.Name)
		}
	}
	for _, a := range Values() {
		if declared(a) {
			fmt.Fprintf(&b, "    %s,\n", a.Name)
		}
	}
	b.WriteString(")\nfrom test_driver.vlan import VLan\n")
	for _, m := range machines {
		fmt.Fprintf(&b, "\n%s: QemuMachine", m)
	}
	for _, n := range vlans {
		fmt.Fprintf(&b, "\nvlan%d: VLan", n)
	}
	b.WriteString("\n")
	return b.String()
}

// declared says whether a global is a value of module symbols; the others are
// imported from where they are.
func declared(a Attribute) bool {
	return a.Only != Starlark && a.Type != "module" && !strings.HasPrefix(string(a.Type), "type[")
}

// header imports all that annotations may name, besides our own classes.
const header = `# Made from the table of vm-prebuild's testrun/script/symbols.
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn, overload
from unittest import TestCase
from uuid import UUID
`

// stubs returns the files of the package by name.
func stubs() map[string]string {
	bodies := map[string]string{"duration": "Duration = timedelta | int | float\n"}
	home := map[string]string{"Duration": "duration"} // module of each class
	for _, c := range Classes() {
		if c.Only != Starlark {
			bodies[c.Module] += classStub(c)
			home[c.Name] = c.Module
		}
	}
	bodies["machine"] += "\nMachine = QemuMachine\n\n" + functionStub(*method(Functions(), "retry"), "")
	bodies["debug"] += "\nclass DebugNop(DebugAbstract): ...\n"
	bodies["symbols"] = ""
	for _, f := range Functions() {
		if f.Only != Starlark {
			bodies["symbols"] += functionStub(f, "")
		}
	}
	for _, a := range Values() {
		if declared(a) {
			bodies["symbols"] += fmt.Sprintf("%s: %s\n", a.Name, a.Type)
		}
	}
	files := map[string]string{
		"test_driver/__init__.pyi": "",
		"test_driver/py.typed":     "",
	}
	for module, body := range bodies {
		name := "test_driver/" + strings.ReplaceAll(module, ".", "/") + ".pyi"
		if module == "machine" { // it has a module of its own
			name = "test_driver/machine/__init__.pyi"
		}
		files[name] = header + imports(module, body, home) + "\n" + body
	}
	return files
}

var identifier = regexp.MustCompile(`\w+`)

// imports returns the import statements for the classes that body names.
func imports(module, body string, home map[string]string) string {
	found := map[string]bool{}
	for _, word := range identifier.FindAllString(body, -1) {
		if m := home[word]; m != "" && m != module {
			found[word] = true
		}
	}
	var b strings.Builder
	for _, class := range slices.Sorted(maps.Keys(found)) {
		fmt.Fprintf(&b, "from test_driver.%s import %s as %s\n", home[class], class, class)
	}
	return b.String()
}

func classStub(c Class) string {
	var b strings.Builder
	base := ""
	if c.Base != "" {
		base = "(" + c.Base + ")"
	}
	fmt.Fprintf(&b, "\nclass %s%s:\n    \"\"\"%s\"\"\"\n", c.Name, base, c.Doc)
	for _, a := range c.Attributes {
		if a.Only != Starlark {
			fmt.Fprintf(&b, "    %s: %s\n", a.Name, a.Type)
		}
	}
	methods := c.Methods
	if c.Name == "Driver" { // it has the global functions, too
		methods = append(slices.Clone(methods), Functions()...)
	}
	for _, f := range methods {
		if f.Only != Starlark {
			b.WriteString(functionStub(f, "    "))
		}
	}
	return b.String()
}

// functionStub declares a function, or with an indent a method.
func functionStub(f Function, indent string) string {
	if f.Result == Decorated { // with the function it is a condition already
		with, without := f, f
		with.Params, without.Params = slices.Clone(f.Params), slices.Clone(f.Params)
		with.Params[0].Type, with.Params[0].Default, with.Result = "Callable[[], bool | None]", "", "Condition"
		without.Params[0].Type = None
		return overload(with, indent) + overload(without, indent)
	}
	doc := f.Doc
	if f.Deprecated != "" {
		doc = strings.TrimSpace(doc + " Deprecated: use " + f.Deprecated + ".")
	}
	self := ""
	if indent != "" {
		self = "self"
	}
	head := fmt.Sprintf("%sdef %s(%s) -> %s:", indent, f.Name, signature(f, self, true), f.Result)
	if doc == "" {
		return head + " ...\n"
	}
	return fmt.Sprintf("%s\n%s    \"\"\"%s\"\"\"\n", head, indent, doc)
}

// overload declares one of several forms of a function.
func overload(f Function, indent string) string {
	self := ""
	if indent != "" {
		self = "self"
	}
	return fmt.Sprintf("%s@overload\n%sdef %s(%s) -> %s: ...\n", indent, indent, f.Name, signature(f, self, true), f.Result)
}

// signature prints parameters as Python writes them, with their types or
// without. Keyword-only ones come behind a star, unless a variadic one does.
func signature(f Function, self string, types bool) string {
	var parts []string
	if self != "" {
		parts = append(parts, self)
	}
	star := false
	for _, p := range f.Params {
		if p.KeywordOnly && !star {
			parts, star = append(parts, "*"), true
		}
		part := p.Name
		if p.Variadic {
			part, star = "*"+part, true
		}
		if types {
			part += ": " + string(p.Type)
		}
		switch {
		case p.Default == "":
		case types:
			part += " = " + p.Default
		default:
			part += "=" + p.Default
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}
