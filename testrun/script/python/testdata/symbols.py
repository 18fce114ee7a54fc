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
