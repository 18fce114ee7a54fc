# machines: machine
# arguments: --keep-machine-state
# runs: 2
# With -K a second run of the test finds the disk of the first.
import pathlib

state = pathlib.Path(machine.state_dir)
disk = state / "machine.qcow2"
second_run = disk.exists()
log.info(f"{'second' if second_run else 'first'} run, disk {disk}")

machine.wait_for_unit("multi-user.target")
if second_run:
    assert machine.succeed("cat /var/lib/counter") == "1\n"
else:
    machine.fail("test -e /var/lib/counter")
machine.succeed("mkdir -p /var/lib; echo $(( $(cat /var/lib/counter 2>/dev/null || echo 0) + 1 )) > /var/lib/counter")
(state / "note").write_text("the script's own\n")
# The driver itself writes the disks back at the end.
