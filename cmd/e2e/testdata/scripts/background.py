# machines: machine
# Jobs that go on after their command.
machine.wait_for_unit("multi-user.target")

with subtest("with its output elsewhere"):
    machine.succeed("(sleep 2; echo done > /tmp/one) >&2 &")
    machine.fail("test -e /tmp/one")
    machine.wait_for_file("/tmp/one")

with subtest("a session of its own"):
    machine.execute("setsid sh -c 'echo $$ > /tmp/pid; exec sleep 1000' >/dev/null 2>&1 &")
    machine.wait_until_succeeds("test -s /tmp/pid")
    machine.succeed("kill -0 $(cat /tmp/pid)")
    machine.succeed("kill $(cat /tmp/pid)")
    machine.wait_until_fails("kill -0 $(cat /tmp/pid)")

with subtest("one that is waited for"):
    assert machine.succeed("sleep 0.2 & wait; echo waited") == "waited\n"

with subtest("one whose output nobody wants"):
    machine.execute("echo lost; sleep 1; touch /tmp/two", check_return=False, check_output=False)
    machine.wait_for_file("/tmp/two", timeout=60)

with subtest("a command does not eat the next one"):
    assert machine.succeed("cat") == ""
    assert machine.succeed("read -r line || echo nothing to read") == "nothing to read\n"
