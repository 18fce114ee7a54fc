package symbols

// jobParams are the parameters of start_job and stop_job.
func jobParams(user Param) []Param {
	return []Param{
		optional("job", Str, `""`), user,
		{Name: "jobname", Type: Str, Default: `""`, KeywordOnly: true, For: "job"},
	}
}

// baseMachine is what every kind of machine can do.
func baseMachine() Class {
	unit := required("unit", Str)
	user := optional("user", OptStr, "None")
	return Class{
		Name: "BaseMachine", Module: "machine",
		Doc: "What every kind of machine can do. What talks to the guest starts the machine first if it does not run.",
		Attributes: []Attribute{
			{Name: "name", Type: "str", Doc: "The machine's name in the test."},
			{Name: "state_dir", Type: "Path", Settable: true, Doc: "Directory of the host for the machine's disks and sockets."},
			{Name: "shared_dir", Type: "Path", Settable: true, Doc: "Directory of the host that the guests see as `/tmp/shared`."},
			{Name: "out_dir", Type: "Path", Settable: true, Doc: "Directory of the host for results."},
			{Name: "booted", Type: "bool", Settable: true, Doc: "Whether the machine has been started and has not ended."},
			{Name: "connected", Type: "bool", Settable: true, Doc: "Whether the guest's shell has answered. Set it to False when the guest starts another kernel."},
			{Name: "logger", Type: "AbstractLogger", Only: Python, Doc: "The log of the test."},
			{Name: "callbacks", Type: "list[Callable[[], None]]", Only: Python, Doc: "Called before each command."},
		},
		Methods: []Function{
			{Name: "log", Params: []Param{required("msg", Str)}, Result: None, Async: true, Doc: "Logs a message that no log level hides, as the machine's."},
			{Name: "log_serial", Params: []Param{required("msg", Str)}, Result: None, Async: true, Only: Python, Doc: "Logs a line as if it were one of the serial console."},
			{Name: "nested", Params: []Param{required("msg", Str), optional("attrs", Attrs, "{}")}, Result: "AbstractContextManager[None]", Block: true, Async: true,
				Doc: "Groups what is logged, as the machine's."},

			{Name: "start", Result: None, Async: true, Doc: "Starts the machine, without waiting for it to boot."},
			{Name: "is_up", Result: Bool, Async: true, Doc: "Says whether the machine runs and its shell has answered."},
			{Name: "connect", Result: None, Async: true, Doc: "Starts the machine if it is off, and waits for its shell."},
			{Name: "shutdown", Result: None, Async: true, Doc: "Powers the machine off and waits until it is."},
			{Name: "wait_for_shutdown", Result: None, Async: true, Doc: "Waits until the machine is off, without asking it to."},
			{Name: "release", Result: None, Async: true, Doc: "Ends the machine at once and frees all that it holds."},
			{Name: "run_callbacks", Result: None, Async: true, Only: Python, Doc: "Checks the polling conditions."},
			{Name: "cleanup_statedir", Result: None, Async: true, Only: Python, Doc: "Removes what earlier runs left in the state directory."},

			{Name: "execute", Result: StatusOut,
				Params: []Param{required("command", Str), optional("check_return", Bool, "True"), optional("check_output", Bool, "True"), timeout()},
				Doc:    "Runs a command and returns its exit status and standard output. Without `check_output` it does not wait for the command, and returns `(-2, \"\")`; without `check_return` the status is -1. After the time-out the status is 124."},
			{Name: "succeed", Params: []Param{variadic("commands", Str), limit()}, Result: Str,
				Doc: "Runs the commands one after the other, each of which must exit with status 0, and returns their joined standard outputs."},
			{Name: "fail", Params: []Param{variadic("commands", Str), limit()}, Result: Str,
				Doc: "Runs the commands one after the other, each of which must exit with another status than 0, and returns their joined standard outputs."},
			{Name: "run", Since: Ours, Params: []Param{required("command", Str), optional("timeout", OptDuration, "None")}, Result: "CommandResult",
				Doc: "Runs a command and returns its `status`, `stdout` and `stderr`, whatever the status."},
			{Name: "parallel", Since: Ours, Params: []Param{variadic("commands", Str), limit()}, Result: "list[str]",
				Doc: "Runs all commands at once, each of which must exit with status 0, and returns their outputs in order. The error names all that failed."},
			{Name: "wait_until_succeeds", Params: []Param{required("command", Str), timeout(), attempt()}, Result: Str,
				Doc: "Repeats a command until it exits with status 0, and returns its output. `attempt_timeout` limits each attempt."},
			{Name: "wait_until_fails", Params: []Param{required("command", Str), timeout(), attempt()}, Result: Str,
				Doc: "Repeats a command until it exits with another status than 0, and returns its output. `attempt_timeout` limits each attempt."},
			{Name: "sleep", Params: []Param{old("secs", optional("duration", OptDuration, "")), optional("duration", OptDuration, "None")}, Result: None,
				Doc: "Lets time pass on the guest's clock."},

			{Name: "systemctl", Params: []Param{required("q", Str), user}, Result: StatusOut,
				Doc: "Runs systemctl with the given arguments, for the units of a user if one is given."},
			{Name: "wait_for_unit", Params: []Param{unit, user, timeout()}, Result: None,
				Doc: "Waits until a unit is active. Fails at once when the unit has failed, or is inactive with no job pending."},
			{Name: "get_unit_info", Params: []Param{unit, user}, Result: Strings, Doc: "Returns the properties of a unit."},
			{Name: "get_unit_property", Params: []Param{unit, required("property", Str), user}, Result: Str, Doc: "Returns one property of a unit."},
			{Name: "require_unit_state", Params: []Param{unit, optional("require_state", Str, `"active"`)}, Result: None, Doc: "Fails unless a unit is in that state now."},
			{Name: "wait_for_job", Only: Python, Deprecated: "wait_for_unit", Params: []Param{required("jobname", Str)}, Result: None, Doc: "A very old name of `wait_for_unit`."},
			{Name: "start_job", Params: jobParams(user), Result: StatusOut, Doc: "Starts a unit, and does not look at the result."},
			{Name: "stop_job", Params: jobParams(user), Result: StatusOut, Doc: "Stops a unit, and does not look at the result."},

			{Name: "wait_for_file", Params: []Param{required("filename", Str), timeout(), attempt()}, Result: None,
				Doc: "Waits until a file exists. The name is a word of the guest's shell, which expands it."},
			{Name: "wait_for_open_port", Params: []Param{required("port", Int), optional("addr", Str, `"localhost"`), timeout(), attempt()}, Result: None,
				Doc: "Waits until a TCP port accepts connections, seen from the guest."},
			{Name: "wait_for_closed_port", Params: []Param{required("port", Int), optional("addr", Str, `"localhost"`), timeout(), attempt()}, Result: None,
				Doc: "Waits until a TCP port does not accept connections, seen from the guest."},
			{Name: "wait_for_open_unix_socket", Params: []Param{required("addr", Str), optional("is_datagram", Bool, "False"), timeout(), attempt()}, Result: None,
				Doc: "Waits until a Unix socket of the guest accepts connections."},

			{Name: "copy_from_host", Params: []Param{required("source", Path), required("target", Str)}, Result: None,
				Doc: "Copies a file or directory of the host into the guest. Modes are kept."},
			{Name: "copy_from_host_via_shell", Params: []Param{required("source", Path), required("target", Str)}, Result: None,
				Doc: "Copies a file of the host into the guest without the shared directory."},
			{Name: "copy_from_machine", Since: "26.05", Params: []Param{required("source", Str), optional("target_dir", Str, `""`)}, Result: None,
				Doc: "Copies a file or directory of the guest below the directory for results."},
			{Name: "copy_from_vm", AliasOf: "copy_from_machine", Deprecated: "copy_from_machine", Params: []Param{required("source", Str), optional("target_dir", Str, `""`)}, Result: None,
				Doc: "The name of `copy_from_machine` up to 25.11."},

			{Name: "screenshot", Params: []Param{required("filename", Str)}, Result: None,
				Doc: "Saves a picture of the screen as PNG. A name without a directory means one in the directory for results."},
			{Name: "get_screen_text", Result: Str, Doc: "Reads the screen by OCR."},
			{Name: "get_screen_text_variants", Result: "list[str]", Doc: "Reads the screen by OCR in several ways."},
			{Name: "wait_for_text", Params: []Param{required("regex", Str), timeout()}, Result: None,
				Doc: "Waits until OCR finds on the screen what matches a regular expression."},
			{Name: "send_key", Params: []Param{required("key", Str), optional("delay", OptDuration, "0.01"), optional("log", "bool | None", "True")}, Result: None,
				Doc: "Presses a key, or several at once: `ctrl-alt-delete`."},
			{Name: "send_chars", Params: []Param{required("chars", Str), optional("delay", OptDuration, "0.01")}, Result: None,
				Doc: "Types text on the keyboard."},
			{Name: "get_window_names", Result: "list[str]", Doc: "Returns the titles of the windows of the guest's X server."},
			{Name: "wait_for_window", Params: []Param{required("regexp", Str), timeout()}, Result: None, Doc: "Waits until the title of a window matches a regular expression."},
			{Name: "wait_for_x", Params: []Param{timeout()}, Result: None, Doc: "Waits until the guest's X server accepts connections."},
		},
	}
}

// qemuMachine is what only QEMU can do.
func qemuMachine() Class {
	tty := required("tty", Str)
	return Class{
		Name: "QemuMachine", Base: "BaseMachine", Module: "machine",
		Doc: "A machine in QEMU.",
		Attributes: []Attribute{
			{Name: "process", Type: "Any", Only: Python, Doc: "The process of QEMU, with `pid`; None when there is none."},
			{Name: "qmp_client", Type: "QMPSession | None", Only: Python, Doc: "QEMU's machine protocol; None when the machine is off."},
		},
		Methods: []Function{
			{Name: "start", Params: []Param{optional("allow_reboot", Bool, "False")}, Result: None, Async: true,
				Doc: "Starts the machine, without waiting for it to boot. Without `allow_reboot`, a guest that reboots ends it."},
			{Name: "crash", Result: None, Doc: "Ends the machine as a power failure would."},
			{Name: "reboot", Result: None, Doc: "Presses ctrl-alt-delete. The machine must have been started with `allow_reboot`."},
			{Name: "switch_root", Result: None, Doc: "Leaves the initial RAM disk of a guest whose backdoor runs there, and waits for the shell of the system."},
			{Name: "send_monitor_command", Params: []Param{required("command", Str)}, Result: Str, Doc: "Has QEMU's human monitor execute a line, and returns the answer."},
			{Name: "wait_for_monitor_prompt", Result: Str, Only: Python, Doc: "Waits until QEMU's human monitor can take a line."},
			{Name: "wait_for_qmp_event", Params: []Param{required("event_filter", QMPFilter), optional("timeout", Duration, tenMinutes)}, Result: "dict[str, Any]",
				Doc: "Waits until QEMU reports an event for which the function returns something true, and returns it."},

			{Name: "get_tty_text", Params: []Param{tty}, Result: Str, Doc: "Returns what a virtual terminal shows."},
			{Name: "wait_until_tty_matches", Params: []Param{tty, required("regexp", Str), timeout()}, Result: None,
				Doc: "Waits until what a virtual terminal shows matches a regular expression."},
			{Name: "dump_tty_contents", Params: []Param{tty}, Result: None, Doc: "Writes what a virtual terminal shows to the guest's journal."},
			{Name: "wait_for_console_text", Params: []Param{required("regex", Str), optional("timeout", OptDuration, "None")}, Result: None,
				Doc: "Waits until the serial console writes what matches a regular expression."},
			{Name: "get_console_log", Result: Str, Async: true, Doc: "Returns what the serial console has written so far."},
			{Name: "send_console", Params: []Param{required("chars", Str)}, Result: None, Doc: "Types text on the serial console."},
			{Name: "console_interact", Result: None, Only: Python, Doc: "Connects the terminal with the serial console, at the prompt."},
			{Name: "shell_interact", Params: []Param{optional("address", OptStr, "None")}, Result: None, Only: Python, Deprecated: "the SSH backdoor", Doc: "Connects the terminal with the guest's shell, at the prompt."},
			{Name: "ssh_backdoor_command", Result: Str, Since: "26.05", Async: true, Doc: "Returns the command that logs in to the machine over SSH."},

			{Name: "forward_port", Params: []Param{optional("host_port", Int, "8080"), optional("guest_port", Int, "80")}, Result: None,
				Doc: "Makes a TCP port of the guest reachable from the host."},
			{Name: "save", Since: Ours, Params: []Param{required("name", Str)}, Result: None,
				Doc: "Keeps what the running machine is (memory, devices, disks) under a name, until it ends. `docs/warm.md` tells which machines can be saved."},
			{Name: "restore", Since: Ours, Params: []Param{required("name", Str)}, Result: None,
				Doc: "Makes the machine what it was at `save` of that name, as often as you like. Its clock is right all the same."},
			{Name: "rollback", Since: Ours, Result: "AbstractContextManager[None]", Block: true, Async: true,
				Doc: "Undoes, at its end, all that was done to the machine in a block, also when the block fails."},

			{Name: "block", Result: None, Doc: "Cuts the machine from its VLANs."},
			{Name: "unblock", Result: None, Doc: "Joins it again."},

			{Name: "read_efi_vars", Result: "dict[str, dict[str, EfiVariable]] | None", Since: "26.05", Async: true, Doc: "Returns the EFI variables of a machine that is off, by vendor and name; None where there is no store.", Starlark: "A list of dicts of name, guid, attributes, and data in base64."},
			{Name: "write_efi_vars", Params: []Param{required("variables", EFIVars)}, Result: None, Since: "26.05", Async: true, Doc: "Adds EFI variables of a machine that is off, or replaces those of the same vendor and name."},
			{Name: "create_efi_vars", Result: None, Since: "26.05", Async: true, Doc: "Makes an empty store of EFI variables for a machine that is off."},
			{Name: "dump_efi_vars", Result: None, Since: "26.05", Async: true, Doc: "Logs the EFI variables of a machine that is off."},
		},
	}
}
