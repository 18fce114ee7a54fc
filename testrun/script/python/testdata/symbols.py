# Every global, and every operation of a machine, with the parameter names and
# the positions that scripts use.
import datetime

start_all()
print([m.name for m in machines], [v.nr for v in vlans], vlan2, driver.vlans == vlans)
print(alpha is machines[0], web_1 is machines[1], driver.machines is machines)
print(isinstance(alpha, Machine), Machine is QemuMachine, issubclass(QemuMachine, BaseMachine))
print(alpha.state_dir / "x", alpha.shared_dir, alpha.out_dir, driver.out_dir, driver.tmp_dir)
print(alpha.booted, alpha.connected)
alpha.connected = False
alpha.state_dir = web_1.state_dir
print(alpha.state_dir)

alpha.start()
alpha.start(allow_reboot=True)
alpha.connect()
print(alpha.is_up())
print(alpha.execute("echo"), alpha.execute("a", False, check_output=False, timeout=None))
print(alpha.execute("a", timeout=datetime.timedelta(minutes=2)))
print(repr(alpha.succeed("one", "two", timeout=1.5)), repr(alpha.succeed("one")))
print(repr(alpha.fail("false", timeout=datetime.timedelta(milliseconds=20))))
print(repr(alpha.wait_until_succeeds("a")), repr(alpha.wait_until_fails("b", 10)))
alpha.wait_until_succeeds("a", timeout=float("inf"))
alpha.wait_for_unit("multi-user.target")
alpha.wait_for_unit("foo.service", "bob", timeout=30)
print(alpha.get_unit_info("foo.service")["ActiveState"], alpha.get_unit_property("foo", "Names", user="bob"))
alpha.require_unit_state("foo", require_state="inactive")
print(alpha.systemctl("status", user="bob"), alpha.start_job("a"), alpha.stop_job("b", "bob"))
alpha.wait_for_file("/tmp/x")
alpha.wait_for_open_port(80)
alpha.wait_for_open_port("81", addr="::1", timeout=5)
alpha.wait_for_closed_port(80, "localhost")
alpha.sleep(3)
alpha.sleep(secs=0.5)
alpha.sleep(duration=datetime.timedelta(seconds=2))
alpha.copy_from_host("a", "/b")
alpha.copy_from_host(source=alpha.shared_dir, target="/b")
alpha.copy_from_machine("/x")
alpha.copy_from_vm("/x", "dir")
alpha.screenshot("s")
print(repr(alpha.send_monitor_command("info network")), repr(alpha.get_console_log()))
alpha.block()
alpha.unblock()
alpha.reboot()
alpha.crash()
alpha.wait_for_shutdown()
alpha.shutdown()
alpha.release()

web_1.log("from a machine")
with web_1.nested("group", {"image": 1}):
    log.log("never hidden")
    log.info("info")
    log.warning("warning")
    log.debug("debug")
with log.nested("outer"), log.subtest("inner"):
    pass

extra = create_machine("run-extra-vm", name="extra", keep_machine_state=True)
extra.start()
create_machine({"startCommand": "run-old-vm", "keep_vm_state": True})
print(extra, extra in machines)
serial_stdout_off()
serial_stdout_on()
t.maxDiff = None
t.assertEqual(1, 1)
with t.assertRaises(ZeroDivisionError):
    1 / 0
join_all()

# The screen, the keyboard and the rest of what only some tests need.
minute = datetime.timedelta(minutes=1)
alpha.wait_for_open_unix_socket("/run/s")
alpha.wait_for_open_unix_socket("/run/s", True, minute, attempt_timeout=minute)
alpha.wait_until_succeeds("a", minute, attempt_timeout=datetime.timedelta(seconds=5))
alpha.wait_until_fails(command="a", timeout=minute, attempt_timeout=2)
alpha.wait_for_file("/f", attempt_timeout=1)
alpha.wait_for_open_port(1, attempt_timeout=1)
alpha.wait_for_closed_port(1, attempt_timeout=1)
print(alpha.run("c"), alpha.run("c", timeout=minute).stderr, alpha.parallel("a", "b"))
try:
    alpha.parallel("a", "false", "b", timeout=minute)
except AssertionError as e:
    print(type(e).__name__, e)
print(succeed_all("c"), succeed_all("c", machines=[alpha, "web-1"], timeout=minute))
alpha.send_key("ctrl-alt-delete")
alpha.send_key("a", delay=None, log=False)
alpha.send_chars("text\n")
alpha.send_chars("text\n", delay=0.1)
alpha.send_console("\n")
print(alpha.get_tty_text(1), alpha.get_screen_text(), alpha.get_screen_text_variants())
alpha.wait_until_tty_matches("1", "login: ")
alpha.wait_until_tty_matches(tty=2, regexp="login: ", timeout=minute)
alpha.dump_tty_contents("1")
alpha.wait_for_console_text("ready")
alpha.wait_for_console_text(re.compile("Ready", re.I | re.M) if (re := __import__("re")) else "", minute)
alpha.wait_for_text("hello", timeout=minute)
print(alpha.get_window_names())
alpha.wait_for_window("Terminal")
alpha.wait_for_x(minute)
alpha.forward_port()
alpha.forward_port(host_port=1, guest_port=2)
alpha.copy_from_host_via_shell("a", "/b")
alpha.switch_root()
alpha.start_job(jobname="c")
alpha.wait_for_job("d")
alpha.log_serial("as if from the console")
print(alpha.wait_for_monitor_prompt() == "", alpha.tmp_dir, alpha.full_console_log)
print(alpha.name, alpha.callbacks == [driver.check_polling_conditions], alpha.logger is log, alpha.start_command)
alpha.name = "renamed"
alpha.log("has another name, but is the same machine")
alpha.succeed("x")
alpha.booted = False
alpha.out_dir = "/elsewhere"
print(alpha.out_dir)

print(alpha.pid, alpha.process.pid, alpha.process.poll(), alpha.process is alpha.process)
alpha.process.stdin.write(b"typed\n")
alpha.process.stdin.flush()
print(list(alpha.process.stdout))

machines[1].qmp_client.send("query-status", {"a": 1})
print(web_1.qmp_client.send("query-status"))
print(web_1.wait_for_qmp_event(lambda e: e["event"] == "SHUTDOWN"))
try:
    web_1.wait_for_qmp_event(lambda e: True, timeout=0)
except TimeoutError as e:
    print(e)
print(list(web_1.qmp_client.events()))
try:
    web_1.qmp_client.send("bad")
except RuntimeError as e:
    print(type(e).__name__, e)

from test_driver.efi import EfiGuid, EfiVariable

alpha.create_efi_vars()
alpha.write_efi_vars([EfiVariable(vendor_uuid=EfiGuid.gMicrosoftVendorGuid, name="n", data=bytes([42]), flags=EfiVariable.Flags.NON_VOLATILE)])
boot = alpha.read_efi_vars()["gEfiGlobalVariableGuid"]["Boot0001"]
print(boot, boot.data, boot.flags, boot.volatile, boot.boot_access, boot.vendorUUID)
alpha.dump_efi_vars()

dump_machine_ssh()
debug.breakpoint()
debug.breakpoint(host="::1", port=1)
log.log_test_error("two\nlines")
log.log_serial("line", "web-1")
log.print_serial_logs(True)
print(machines_qemu == machines, machines_nspawn, isinstance(alpha, NspawnMachine))
try:
    NspawnMachine("c")
except NotImplementedError as e:
    print(e)
