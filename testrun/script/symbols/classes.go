package symbols

// Classes returns the classes of the values that scripts meet, bases first.
func Classes() []Class {
	message := required("message", Str)
	attributes := optional("attributes", Attrs, "{}")
	line := []Param{message, attributes}
	return []Class{
		{Name: "MachineError", Base: "Exception", Module: "errors", Only: Python, Doc: "A machine could not do what was asked of it."},
		{Name: "RequestedAssertionFailed", Base: "AssertionError", Module: "errors", Only: Python, Doc: "An expectation of the script was not met."},
		{Name: "PollingConditionError", Base: "Exception", Module: "polling_condition", Only: Python, Doc: "A polling condition did not hold."},
		{
			Name: "AbstractLogger", Module: "logger",
			Doc: "The log of a test.",
			Methods: []Function{
				{Name: "log", Params: line, Result: None, Async: true, Doc: "Logs a message that no log level hides."},
				{Name: "debug", Params: line, Result: None, Async: true, Doc: "Logs a message of level debug."},
				{Name: "info", Params: line, Result: None, Async: true, Doc: "Logs a message of level info."},
				{Name: "warning", Params: line, Result: None, Async: true, Doc: "Logs a message of level warning."},
				{Name: "error", Params: line, Result: "NoReturn", Async: true, Doc: "Logs a message of level error, and ends the script with exit code 1."},
				{Name: "nested", Params: line, Result: "AbstractContextManager[None]", Block: true, Async: true, Doc: "Groups what is logged."},
				{Name: "subtest", Params: []Param{required("name", Str), attributes}, Result: "AbstractContextManager[None]", Block: true, Async: true, Doc: "The same as the global `subtest`."},
				{Name: "log_test_error", Params: line, Result: None, Async: true, Only: Python, Doc: "Logs a message as one of a failure, and goes on."},
				{Name: "log_serial", Params: []Param{message, required("machine", Str)}, Result: None, Async: true, Only: Python, Doc: "Logs a line as if it were one of a machine's serial console."},
				{Name: "print_serial_logs", Params: []Param{required("enable", Bool)}, Result: None, Async: true, Only: Python, Doc: "The same as `serial_stdout_on` and `serial_stdout_off`."},
				{Name: "set_log_level", Params: []Param{required("level", Any)}, Result: None, Async: true, Only: Python, Doc: "Warns that `--log-level` sets the level."},
			},
		},
		{Name: "CompositeLogger", Base: "AbstractLogger", Module: "logger", Only: Python, Doc: "The class of `log`."},
		{
			Name: "CommandResult", Module: "machine",
			Doc: "A command that has ended.",
			Attributes: []Attribute{
				{Name: "status", Type: "int", Doc: "Its exit status."},
				{Name: "stdout", Type: "str", Doc: "What it wrote to standard output."},
				{Name: "stderr", Type: "str", Doc: "What it wrote to standard error."},
			},
		},
		{
			Name: "QMPSession", Module: "machine.qmp", Only: Python,
			Doc: "QEMU's machine protocol.",
			Methods: []Function{
				{Name: "send", Params: []Param{required("cmd", Str), optional("args", Attrs, "{}")}, Result: "dict[str, Any]", Doc: "Executes a command and returns its result."},
				{Name: "wait_for_event", Params: []Param{optional("timeout", Duration, "10.0")}, Result: "dict[str, Any]", Doc: "Returns the next event."},
				{Name: "events", Params: []Param{optional("timeout", Duration, "10.0")}, Result: "Iterator[dict[str, Any]]", Doc: "Iterates over events, until none comes within the time-out."},
			},
		},
		{
			Name: "EfiVariable", Module: "efi", Only: Python,
			Doc: "A variable of the firmware.",
			Attributes: []Attribute{
				{Name: "name", Type: "str", Settable: true, Doc: "Its name."},
				{Name: "guid", Type: "UUID", Settable: true, Doc: "The GUID of its vendor."},
				{Name: "attributes", Type: "int", Settable: true, Doc: "Its attributes: bits of the UEFI specification."},
				{Name: "data", Type: "bytes", Settable: true, Doc: "Its contents."},
			},
			Methods: []Function{
				{Name: "__init__", Result: None, Params: []Param{
					optional("vendor_uuid", "UUID | None", "None"), optional("name", OptStr, "None"), optional("data", "bytes | None", "None"),
					optional("state", "int | None", "None"), optional("flags", "int | None", "None"),
				}},
			},
		},
		baseMachine(),
		qemuMachine(),
		{Name: "NspawnMachine", Base: "BaseMachine", Module: "machine", Only: Python, Doc: "A container. This driver has none; the name is there for annotations."},
		{
			Name: "VLan", Module: "vlan",
			Doc:        "A virtual network between machines.",
			Attributes: []Attribute{{Name: "nr", Type: "int", Doc: "Its number."}},
			Methods: []Function{
				{Name: "set_loss", Since: Ours, Async: true, Params: []Param{required("loss", Float), optional("machine", OptMachine, "None")}, Result: None,
					Doc: "Loses a share of the frames, 0 to 1: those to a machine and from it, or all."},
				{Name: "set_delay", Since: Ours, Async: true, Params: []Param{required("delay", Duration), optional("jitter", Duration, "0"), optional("machine", OptMachine, "None")}, Result: None,
					Doc: "Delays the frames, each by up to `jitter` more: those to a machine and from it, or all."},
				{Name: "partition", Since: Ours, Async: true, Params: []Param{variadic("groups", Machines)}, Result: None,
					Doc: "Lets only machines of the same group reach each other: `vlan1.partition([a, b], [c])`."},
				{Name: "heal", Since: Ours, Async: true, Result: None, Doc: "Undoes all of this. A guest that asked in vain for the address of another (ARP) may still drop a packet: use `wait_until_succeeds`."},
				{Name: "stats", Since: Ours, Async: true, Result: Traffic,
					Doc: "Returns for each machine what it has sent and got: machine, from_frames, from_bytes, to_frames, to_bytes, dropped."},
			},
		},
		{
			Name: "Condition", Module: "polling_condition",
			Doc: "What `polling_condition` makes of a function.",
			Methods: []Function{
				{Name: "wait", Params: []Param{old("timeout_seconds", optional("timeout", OptDuration, "")), optional("timeout", OptDuration, "None")}, Result: None,
					Doc: "Waits until the condition holds, 15 minutes by default."},
				{Name: "during", Only: Starlark, Since: Ours, Params: []Param{required("fn", Fn)}, Result: Any,
					Doc: "Calls `fn`, and checks the condition before each command and between the polls of waits."},
				{Name: "__enter__", Only: Python, Result: None},
				{Name: "__exit__", Only: Python, Params: []Param{variadic("exc", Any)}, Result: None},
			},
		},
		{
			Name: "Driver", Module: "driver",
			Doc: "All machines of a test, and the script that drives them.",
			Attributes: []Attribute{
				{Name: "machines", Type: "list[QemuMachine]", Doc: "As the global."},
				{Name: "vlans", Type: "list[VLan]", Doc: "As the global."},
				{Name: "out_dir", Type: "Path", Doc: "Directory for results."},
				{Name: "tmp_dir", Type: "Path", Doc: "Runtime directory of the driver."},
				{Name: "log", Type: "AbstractLogger", Only: Python, Doc: "As the global."},
				{Name: "logger", Type: "AbstractLogger", Only: Python, Doc: "As the global `log`."},
			},
		},
		{
			Name: "DebugAbstract", Module: "debug", Only: Python,
			Doc: "Breakpoints for whoever debugs a build.",
			Methods: []Function{
				{Name: "breakpoint", Params: []Param{optional("host", Str, `"127.0.0.1"`), optional("port", Int, "4444")}, Result: None,
					Doc: "Waits for a debugger, where `--debug-hook-attach` is given."},
				{Name: "post_mortem", Params: []Param{required("error", "BaseException")}, Result: None, Doc: "The same, after the script has failed."},
			},
		},
	}
}
