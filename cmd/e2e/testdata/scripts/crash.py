# machines: machine
# The power fails; what was synced survives it.
machine.start()
machine.wait_for_unit("multi-user.target")
machine.succeed("echo written > /root/synced", "sync")
machine.succeed("mount | grep -q overlay")
pid = machine.process.pid
os.kill(pid, 0)

machine.crash()
assert not machine.is_up()
assert not machine.booted

machine.start()
machine.wait_for_unit("multi-user.target")
assert machine.succeed("cat /root/synced") == "written\n"
assert machine.process.pid != pid

with subtest("commands start a machine that is off"):
    machine.crash()
    machine.succeed("true")
    assert machine.is_up()
