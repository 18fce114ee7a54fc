# Without machines of the test, a script makes its own.
from pathlib import Path

from test_driver.config import DriverConfiguration
from test_driver.logger import TerminalLogger

machine = create_machine("run-machine-vm")
machine.start()

with Driver(
    config=DriverConfiguration(
        vms={"b": {"name": "b", "start_script": "run-b-vm"}, "a": {"name": "a", "start_script": "run-a-vm"}},
        containers={},
        vlans=[3],
        global_timeout=60,
        enable_ssh_backdoor=False,
        test_script=None,
    ),
    out_dir=Path("/out"),
    logger=TerminalLogger(),
) as other:
    other.start_all()
    print(other.machines, other.vlans, other.out_dir)
    other.machines[0].succeed("newest")

older = Driver([None], ["run-c-vm"], None, [], [3], "c.succeed('26.05')", Path("/out"), log, True, 60)
print([m.name for m in older.machines])
oldest = Driver(["run-d-vm"], [], "with subtest('s'): machine.succeed('25.11')", Path("/out"), log, keep_vm_state=True)
oldest.run_tests()
oldest.join_all()

for wrong in (
    lambda: Driver(),
    lambda: Driver(["x"], [], "", "/out", log, colour="red"),
    lambda: Driver(["x"], [4], "", "/out", log),
    lambda: Driver([], [], ["c"], ["run-c-nspawn"], [], "", "/out", log),
):
    try:
        wrong()
    except (TypeError, ValueError, NotImplementedError) as e:
        print(f"{type(e).__name__}: {e}")
