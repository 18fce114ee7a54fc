// Package symbols is the one table of everything that a test script can call:
// globals, the methods of machines, VLANs and the log, with parameters, types
// and documentation. From it come the typed stubs against which Python scripts
// are checked ([WriteStubs]), the list for linters ([DriverSymbols]), the
// reference page docs/scripts.md, and the checks of a Starlark script's
// arguments.
//
// Names, parameters and defaults are those of nixpkgs' nixos/lib/test-driver of
// autumn 2026, with the names that earlier releases had, and what only this
// driver offers.
package symbols

// Function is something that scripts call.
type Function struct {
	Name   string
	Params []Param
	Result Type
	Doc    string // one or two sentences

	// Since names the release of nixpkgs that brought it, if it is younger than
	// 24.05, or is [Ours].
	Since      string
	Deprecated string // what to use instead; "" when it is not deprecated
	AliasOf    string // the name of the same function that is current

	// Block marks what is a context manager in Python. Starlark has none: there
	// the function takes one more argument, fn, and calls it.
	Block bool
	// Async marks what neither waits nor talks to the guest: polling conditions
	// are not checked before it.
	Async bool

	Only     Language // the language that has it; "" means all
	Starlark string   // how it differs in Starlark
}

// Ours marks what nixpkgs' driver does not have.
const Ours = "vm-prebuild"

// Language is a language of test scripts.
type Language string

// The languages.
const (
	Python   Language = "Python"
	Starlark Language = "Starlark"
)

// Param is a parameter of a function.
type Param struct {
	Name        string
	Type        Type
	Default     string // Python literal; "" means that the argument is required
	KeywordOnly bool
	Variadic    bool // takes all further positional arguments

	// For names the parameter that this one is another, deprecated name of.
	For string
}

// Attribute is something that scripts read.
type Attribute struct {
	Name  string
	Type  Type
	Doc   string
	Since string
	// Settable attributes may be assigned to.
	Settable bool
	Only     Language
}

// Class is a Python class; in Starlark, a kind of value with attributes.
type Class struct {
	Name       string
	Base       string // class of this table, or one of Python's; may be empty
	Module     string // of package test_driver that defines it
	Doc        string
	Attributes []Attribute
	Methods    []Function
	Only       Language
}

// Type is a type as Python's annotations write it.
type Type string

// Types that parameters have.
const (
	Any      Type = "Any"
	None     Type = "None"
	Bool     Type = "bool"
	Int      Type = "int"
	Float    Type = "float"
	Str      Type = "str"
	Path     Type = "str | PathLike[str]"
	Duration Type = "Duration" // seconds (int, float), timedelta, Starlark's time.duration
	Strings  Type = "dict[str, str]"
	Attrs    Type = "dict[str, Any]"

	OptStr      Type = "str | None"
	OptDuration Type = "Duration | None"
	OptMachine  Type = "BaseMachine | str | None"
	OptMachines Type = "Iterable[BaseMachine | str] | None"

	Attempt   Type = "Callable[[bool], Any]"                            // told whether it is the last attempt
	Condition Type = "Callable[[], bool | None] | None"                 // None or true: it holds
	QMPFilter Type = "Callable[[dict[str, Any]], bool]"                 // whether an event is the awaited one
	Machines  Type = "Iterable[BaseMachine | str]"                      // one side of a partition
	Command   Type = "str | dict[str, Any]"                             // of create_machine
	EFIVars   Type = "Iterable[EfiVariable]"                            // to write
	Fn        Type = "Callable[[], Any]"                                // Starlark only
	Value     Type = "Any"                                              // of any type
	StatusOut Type = "tuple[int, str]"                                  // result of execute
	Traffic   Type = "list[dict[str, Any]]"                             // result of VLan.stats
	Decorated Type = "Callable[[Callable[[], bool | None]], Condition]" // a decorator
)

// DriverSymbols returns the names of the globals that every Python script has,
// besides its machines and VLANs, for linters.
func DriverSymbols() []string {
	var names []string
	for _, f := range Functions() {
		if f.Only != Starlark {
			names = append(names, f.Name)
		}
	}
	for _, a := range Values() {
		if a.Only != Starlark {
			names = append(names, a.Name)
		}
	}
	return names
}

// ClassNamed returns the class of that name.
func ClassNamed(name string) (Class, bool) {
	for _, c := range Classes() {
		if c.Name == name {
			return c, true
		}
	}
	return Class{}, false
}

// MethodsOf returns the methods of the named class, inherited ones included.
func MethodsOf(name string) []Function {
	c, ok := ClassNamed(name)
	if !ok {
		return nil
	}
	var all []Function
	for _, f := range MethodsOf(c.Base) {
		if method(c.Methods, f.Name) == nil {
			all = append(all, f)
		}
	}
	return append(all, c.Methods...)
}

func method(all []Function, name string) *Function {
	for i, f := range all {
		if f.Name == name {
			return &all[i]
		}
	}
	return nil
}

// In returns the function as the given language has it: with the parameter fn
// where Starlark has it.
func (f Function) In(l Language) Function {
	if l != Starlark || !f.Block {
		return f
	}
	fn := Param{Name: "fn", Type: Fn}
	params := make([]Param, 0, len(f.Params)+1)
	placed := false
	for _, p := range f.Params {
		if p.Default != "" && !placed {
			params, placed = append(params, fn), true
		}
		params = append(params, p)
	}
	if !placed {
		params = append(params, fn)
	}
	f.Params = params
	f.Result = Any // fn's
	return f
}
