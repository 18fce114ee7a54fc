# What scripts do that type checkers must accept.
import datetime
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from test_driver.errors import MachineError, RequestedAssertionFailed
from test_driver.machine import BaseMachine, Machine, QemuMachine, retry as retry_again
from test_driver.polling_condition import PollingConditionError

start_all()
machine.wait_for_unit("multi-user.target")
machine.wait_for_unit("app.service", "alice", timeout=30)
machine.wait_for_open_port(80, timeout=datetime.timedelta(minutes=1), attempt_timeout=2.5)
out: str = machine.succeed("a", "b", timeout=10)
status, output = machine.execute("true", check_return=False)
assert status + 1 and output.strip()
info: dict[str, str] = machine.get_unit_info("app.service")
machine.state_dir = Path("/tmp/x")
path: Path = machine.state_dir / "disk.img"
machine.connected = False
machine.start(allow_reboot=True)
machine.copy_from_vm("/a", "b")
result = machine.run("false")
assert result.status == 1 and "x" in result.stderr
first, second = machine.parallel("a", "b")
outputs = succeed_all("hostname", machines=[machine, "client"])
assert outputs["machine"]
event = machine.wait_for_qmp_event(lambda e: e["event"] == "RESET", timeout=5)
if machine.qmp_client is not None:
    machine.qmp_client.send("query-status")
for vendor in (machine.read_efi_vars() or {}).values():
    for variable in vendor.values():
        variable.data = b"x"

with subtest("a"), machine.nested("b", {"image": 1}), log.nested("c"):
    log.warning("careful")

retry(lambda last: machine.is_up(), timeout=5)
retry(lambda _: True, 900)
retry_again(lambda _: True)


@polling_condition
def healthy() -> bool:
    return True


@polling_condition(seconds_interval=5, description="x")
def tidy() -> None:
    pass


with healthy, tidy:
    machine.succeed("x")
healthy.wait(timeout=3)


def check(m: Machine, base: BaseMachine, q: QemuMachine) -> None:
    base.succeed("true")
    q.crash()


check(machine, machine, machines[0])
with ThreadPoolExecutor() as pool:
    list(pool.map(lambda m: m.succeed("true"), machines))
try:
    machine.fail("x")
except (MachineError, RequestedAssertionFailed, PollingConditionError) as e:
    t.assertIn("x", str(e))
extra = create_machine("run-vm", name="extra", keep_machine_state=True)
extra.block()
vlan1.set_loss(0.1, machine=machine)
vlan1.set_delay(0.5, jitter=0.1)
vlan1.partition([machine], ["client"])
assert vlan1.stats()[0]["dropped"] == vlan1.nr
driver.start_all()
os.environ["NIX_DISK_IMAGE"] = str(driver.out_dir / "x")
machine.shutdown()
join_all()
machine.save("before")
machine.restore(name="before")
with machine.rollback(), subtest("isolated", isolate=True):
    machine.succeed("true")
