# Every operation of a machine, on whatever guest there is. The test's
# environment has FIXTURE, a directory to copy.
import os
import time

m = machines[0]


def raises(kind, text, f):
    try:
        f()
    except Exception as e:
        assert type(e).__name__ == kind, f"{type(e).__name__}: {e}"
        assert text in str(e), f"{text!r} is not in {e}"
    else:
        raise AssertionError(f"no {kind}")


with subtest("life cycle"):
    assert not m.is_up()
    m.start(allow_reboot=True)
    assert m.booted and not m.is_up()
    m.connect()
    assert m.is_up()
    m.wait_for_unit("multi-user.target")

with subtest("commands"):
    assert m.succeed("echo one", "echo two") == "one\ntwo\n"
    assert m.fail("echo no; false") == "no\n"
    assert m.execute("exit 3") == (3, "")
    assert m.execute("echo x", check_return=False) == (-1, "x\n")
    assert m.execute("sleep 0", check_output=False) == (-2, "")
    assert m.execute("sleep 60", timeout=1)[0] == 124
    raises("RequestedAssertionFailed", "command `false` failed (exit code 1)", lambda: m.succeed("false"))
    raises("RequestedAssertionFailed", "unexpectedly succeeded", lambda: m.fail("true"))
    assert len(m.succeed("head -c 3000000 /dev/zero | tr '\\0' z")) == 3000000

with subtest("waits"):
    m.execute("(sleep 1; touch /tmp/late) >/dev/null 2>&1 &")
    m.wait_for_file("/tmp/late")
    assert m.wait_until_succeeds("cat /tmp/late && echo there") == "there\n"
    m.wait_until_fails("test ! -e /tmp/late")
    raises("RequestedAssertionFailed", "action timed out after", lambda: m.wait_for_file("/tmp/never", timeout=1))
    raises("RequestedAssertionFailed", "action timed out after", lambda: m.wait_for_open_port(81, timeout=1))
    m.wait_for_closed_port(81)
    before = time.monotonic()
    m.sleep(1)
    assert time.monotonic() - before > 0.9

with subtest("units"):
    assert m.get_unit_property("multi-user.target", "ActiveState") == "active"
    assert m.get_unit_info("multi-user.target")["Id"] == "multi-user.target"
    m.require_unit_state("multi-user.target")
    assert m.systemctl("is-active multi-user.target") == (0, "active\n")
    assert m.start_job("multi-user.target")[0] == 0
    assert m.stop_job("no-such.service")[0] != 0
    raises(
        "RequestedAssertionFailed",
        'unit "no-such.service" is inactive and there are no pending jobs',
        lambda: m.wait_for_unit("no-such.service"),
    )

with subtest("files"):
    m.copy_from_host(os.environ["FIXTURE"], "/tmp/copied/tree")
    assert m.succeed("cat /tmp/copied/tree/sub/file") == "content\n"
    assert m.succeed("/tmp/copied/tree/program") == "it runs\n"
    m.copy_from_machine("/tmp/copied/tree", "back")
    with open(f"{m.out_dir}/back/tree/sub/file") as f:
        assert f.read() == "content\n"
    m.screenshot("screen")
    with open(f"{m.out_dir}/screen.png", "rb") as f:
        assert f.read(4) == b"\x89PNG"
    assert not os.listdir(m.shared_dir)

with subtest("monitor, links and console"):
    assert "running" in m.send_monitor_command("info status")
    m.block()
    m.unblock()
    assert "connecting to host" in m.get_console_log()

with subtest("retry and polling conditions"):
    calls = []
    retry(lambda last: calls.append(last) or len(calls) == 3)
    assert calls == [False] * 3

    @polling_condition
    def guest_answers():
        m.succeed("true")

    with guest_answers:
        m.succeed("true")

with subtest("reboot"):
    boot = m.succeed("cat /proc/sys/kernel/random/boot_id")
    m.reboot()
    m.connect()
    assert m.succeed("cat /proc/sys/kernel/random/boot_id") != boot

with subtest("crash"):
    m.crash()
    assert not m.is_up()

with subtest("a machine of the script's own, and an orderly end"):
    own = create_machine(os.environ["START_COMMAND"], name="own")
    own.start()
    own.wait_for_unit("multi-user.target")
    own.succeed("true")
    own.shutdown()
    assert not own.is_up()
