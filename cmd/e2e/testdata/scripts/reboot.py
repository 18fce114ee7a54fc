# machines: machine
# A reboot: what is on the disk stays, what is in memory goes.
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"

machine.start(allow_reboot=True)
machine.wait_for_unit("multi-user.target")
first = machine.succeed(BOOT_ID)
machine.succeed("echo kept > /root/on-disk", "echo lost > /run/in-memory", "sync")

with subtest("by the keyboard"):
    machine.reboot()
    machine.wait_for_unit("multi-user.target")
    second = machine.succeed(BOOT_ID)
    assert second != first
    assert machine.succeed("cat /root/on-disk") == "kept\n"
    machine.fail("test -e /run/in-memory")

with subtest("by a command of the guest"):
    machine.execute("(sleep 0.2; reboot) >/dev/null 2>&1 &", check_return=False)
    machine.connected = False
    machine.connect()
    third = machine.succeed(BOOT_ID)
    assert len({first, second, third}) == 3
