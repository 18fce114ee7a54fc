# machines: beta alpha
# What scripts find besides their machines: driver, log, machines, vlans.
from pathlib import Path

assert [m.name for m in machines] == ["alpha", "beta"]
assert [m.name for m in driver.machines] == ["alpha", "beta"]
assert driver.machines[0] is alpha
assert len(vlans) == 1 and vlans[0] is vlan1 and vlan1.nr == 1
assert driver.vlans == vlans

for m in machines:
    state = Path(m.state_dir)
    assert state.is_dir() and state.name == f"vm-state-{m.name}"
    assert state.stat().st_mode & 0o777 == 0o700
    assert Path(m.shared_dir).is_dir()
    assert Path(m.out_dir) == Path(driver.out_dir)
assert Path(alpha.state_dir).parent == Path(driver.tmp_dir)

log.info("a message")
log.warning("a warning")
log.debug("hidden")
log.log("always shown")
with log.nested("a group", {"key": "value"}):
    alpha.log("from a machine")
with driver.subtest("by way of the driver"):
    driver.start_all()
    alpha.wait_for_unit("network.target")
    (Path(alpha.shared_dir) / "note").write_text("by hand\n")
    assert alpha.succeed("cat /tmp/shared/note") == beta.succeed("cat /tmp/shared/note") == "by hand\n"
    os.unlink(f"{alpha.shared_dir}/note")

names = {"start_all", "join_all", "subtest", "retry", "polling_condition", "create_machine", "serial_stdout_on", "os", "t"}
assert names <= set(globals()), names - set(globals())
