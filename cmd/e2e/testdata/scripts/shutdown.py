# machines: machine
# On, off, and on again.
assert not machine.booted and not machine.is_up()
machine.start()
machine.connect()
assert machine.booted and machine.connected and machine.is_up()

machine.succeed("echo data > /root/data")
machine.shutdown()
assert not machine.is_up()
machine.shutdown()  # again is nothing

machine.start()
machine.start()  # so is this
assert machine.succeed("cat /root/data") == "data\n"
machine.execute("(sleep 0.5; poweroff) >/dev/null 2>&1 &")
machine.wait_for_shutdown()
assert not machine.is_up()
