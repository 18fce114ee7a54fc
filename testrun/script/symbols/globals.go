package symbols

// Defaults of time-outs, in seconds.
const (
	fifteenMinutes = "900.0"
	tenMinutes     = "600.0"
)

func required(name string, t Type) Param { return Param{Name: name, Type: t} }
func optional(name string, t Type, value string) Param {
	return Param{Name: name, Type: t, Default: value}
}
func variadic(name string, t Type) Param { return Param{Name: name, Type: t, Variadic: true} }

// keyword is a parameter that can only be given by name.
func keyword(name string, t Type, value string) Param {
	return Param{Name: name, Type: t, Default: value, KeywordOnly: true}
}

// old is an earlier name of parameter p, at its own position.
func old(name string, p Param) Param {
	p.Name, p.For, p.Default = name, p.Name, "None"
	return p
}

// timeout is the parameter of waits.
func timeout() Param { return optional("timeout", OptDuration, fifteenMinutes) }

// limit is the parameter of commands, which have no time-out by default.
func limit() Param { return keyword("timeout", OptDuration, "None") }

// attempt is the parameter that limits each attempt of a wait.
func attempt() Param { return keyword("attempt_timeout", OptDuration, "None") }

// Functions returns the global functions of a script.
func Functions() []Function {
	return []Function{
		{Name: "start_all", Result: None,
			Doc: "Starts all machines at once, without waiting for them to boot. The error tells of every machine that could not be started."},
		{Name: "join_all", Result: None,
			Doc: "Waits until all machines are off, and then stops the global time-out."},
		{Name: "succeed_all", Since: Ours, Result: Strings,
			Params: []Param{required("command", Str), optional("machines", OptMachines, "None"), optional("timeout", OptDuration, "None")},
			Doc:    "Runs one command on several machines at once (default: all of the test), where it must exit with status 0. Returns the outputs by machine name."},
		{Name: "subtest", Params: []Param{required("name", Str), keyword("isolate", Bool, "False")}, Result: "AbstractContextManager[None]", Block: true,
			Doc: "Groups a part of the test, which reports list by its name. The first subtest that fails ends the test, unless `--keep-going` is given. With `isolate` (vm-prebuild's), all that was done to the machines that ran at its beginning is undone at its end, as by `rollback`."},
		{Name: "retry", Result: None,
			Params:   []Param{required("fn", Attempt), old("timeout_seconds", optional("timeout", OptDuration, "")), optional("timeout", OptDuration, "None")},
			Doc:      "Calls `fn(False)` until it returns something true. After the time-out (15 minutes by default) comes one last `fn(True)`, whose failure is that of the test.",
			Starlark: "`fn` may have no parameter."},
		{Name: "polling_condition", Result: Decorated,
			Params: []Param{
				optional("fun_", Condition, "None"),
				{Name: "seconds_interval", Type: OptDuration, Default: "None", KeywordOnly: true, For: "interval"},
				keyword("interval", OptDuration, "None"),
				keyword("description", OptStr, "None"),
			},
			Doc:      "Decorator: makes a condition of a function that returns False or raises when something does not hold. Within `with condition:` it is checked before each command and between the polls of waits, at most once an interval (2 s by default).",
			Starlark: "A plain function: `healthy = polling_condition(fn, description=…)`, then `healthy.during(fn)` instead of `with`."},
		{Name: "create_machine", Result: "QemuMachine",
			Params: []Param{
				required("start_command", Command),
				keyword("name", OptStr, "None"),
				keyword("keep_machine_state", Bool, "False"),
				{Name: "keep_vm_state", Type: Bool, Default: "False", KeywordOnly: true, For: "keep_machine_state"},
			},
			Doc: "Makes a machine of a start script, or of a command line that starts QEMU. It is not among `machines`, and is not started."},
		{Name: "run_tests", Result: None, Only: Python,
			Doc: "Runs the test script from the prompt, with the global time-out, and then flushes the disks of the machines that are up."},
		{Name: "test_script", Result: None,
			Doc: "Runs the test script, from the prompt."},
		{Name: "serial_stdout_on", Result: None, Doc: "Prints what the machines write to their serial consoles, which is the default."},
		{Name: "serial_stdout_off", Result: None, Doc: "Does not print it. It is recorded all the same."},
		{Name: "dump_machine_ssh", Params: []Param{optional("offset", "int | None", "None")}, Result: None, Since: "26.05", Doc: "Prints how to log in to each machine over SSH, where the backdoor is enabled."},

		{Name: "parallel", Only: Starlark, Since: Ours, Params: []Param{variadic("fns", Fn)}, Result: "list[Any]",
			Doc: "Calls all functions at once and returns their results in order. When one fails, the others are given up. They share globals as Python's threads do: one runs at a time, and the others while it waits for a machine."},
		{Name: "catch", Only: Starlark, Since: Ours, Params: []Param{required("fn", Fn)}, Result: "tuple[Any, str | None]",
			Doc: "Calls `fn` and returns `(result, None)`, or `(None, message)` when it fails. The end of the test cannot be caught."},
		{Name: "assert_equal", Only: Starlark, Since: Ours, Params: []Param{required("actual", Value), required("expected", Value), optional("message", OptStr, "None")}, Result: None,
			Doc: "Fails the test unless both values are equal."},
		{Name: "assert_true", Only: Starlark, Since: Ours, Params: []Param{required("value", Value), optional("message", OptStr, "None")}, Result: None,
			Doc: "Fails the test unless the value is true."},
		{Name: "assert_in", Only: Starlark, Since: Ours, Params: []Param{required("member", Value), required("container", Value), optional("message", OptStr, "None")}, Result: None,
			Doc: "Fails the test unless the container (list, dict, set, tuple) has the member, or the string the substring."},
		{Name: "fail", Only: Starlark, Since: Ours, Params: []Param{optional("message", Value, `"the test failed"`)}, Result: "NoReturn",
			Doc: "Fails the test."},
		{Name: "exit", Only: Starlark, Since: Ours, Params: []Param{optional("code", Int, "0")}, Result: "NoReturn",
			Doc: "Ends the script with that exit code, as Python's `sys.exit` does."},
	}
}

// Values returns the global values of a script, besides its machines and VLANs
// (vlan1, vlan2, …), which have their own names.
func Values() []Attribute {
	return []Attribute{
		{Name: "machines", Type: "list[QemuMachine]", Doc: "All machines of the test, sorted by name."},
		{Name: "machines_qemu", Type: "list[QemuMachine]", Since: "26.05", Doc: "Those that QEMU runs: all, here."},
		{Name: "machines_nspawn", Type: "list[NspawnMachine]", Since: "26.05", Doc: "The containers of the test: none, here."},
		{Name: "vlans", Type: "list[VLan]", Doc: "All VLANs of the test."},
		{Name: "driver", Type: "Driver", Doc: "The driver of the test."},
		{Name: "log", Type: "AbstractLogger", Doc: "The log of the test."},
		{Name: "debug", Type: "DebugAbstract", Since: "25.11", Only: Python, Doc: "Breakpoints for whoever debugs a build."},
		{Name: "t", Type: "TestCase", Only: Python, Doc: "A `unittest.TestCase`: `t.assertEqual`, `t.assertIn`, …"},
		{Name: "os", Type: "module", Doc: "Python's module. Machines are started with the script's `os.environ`. In Starlark, it has nothing but `environ` and `getcwd()`."},
		{Name: "BaseMachine", Type: "type[BaseMachine]", Since: "26.05", Only: Python, Doc: "Class of all machines, for annotations."},
		{Name: "QemuMachine", Type: "type[QemuMachine]", Since: "26.05", Only: Python, Doc: "Class of machines in QEMU, for annotations."},
		{Name: "NspawnMachine", Type: "type[NspawnMachine]", Since: "26.05", Only: Python, Doc: "Class of containers, for annotations."},
		{Name: "Machine", Type: "type[QemuMachine]", Only: Python, Doc: "The name that `QemuMachine` had up to 25.11."},
		{Name: "json", Type: "module", Only: Starlark, Doc: "`json.encode`, `json.decode`, `json.indent`."},
		{Name: "time", Type: "module", Only: Starlark, Doc: "`time.now()`, `time.parse_duration(\"5m\")`, `time.sleep(seconds)` on the host, …"},
		{Name: "re", Type: "module", Only: Starlark, Doc: "`re.search(pattern, text)` and `re.match` return a list of the match and its groups, or None; `re.findall(pattern, text)`, `re.sub(pattern, replacement, text)`. The syntax is RE2's: no lookaround."},
		{Name: "struct", Type: "type", Only: Starlark, Doc: "`struct(a=1, b=2)` makes a value with attributes."},
	}
}
