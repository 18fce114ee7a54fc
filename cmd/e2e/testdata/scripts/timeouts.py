# machines: machine
# Every wait has an end, and its message says how long it was.
import re
import time


def took(f):
    begin = time.monotonic()
    result = f()
    return result, time.monotonic() - begin


def timed_out(f):
    try:
        f()
    except Exception as e:
        assert re.fullmatch(r"action timed out after \d+(\.\d+)? seconds \(timeout=[\d.]+\)", str(e)), e
        assert type(e).__name__ == "RequestedAssertionFailed", type(e)
        return e
    else:
        raise AssertionError("it did not time out")


machine.wait_for_unit("multi-user.target")

with subtest("a command"):
    (status, out), seconds = took(lambda: machine.execute("echo begun; sleep 100", timeout=1))
    assert (status, out) == (124, "begun\n"), (status, out)
    assert seconds < 30, seconds
    try:
        machine.succeed("sleep 100", timeout=1)
    except Exception as e:
        assert "failed (exit code 124)" in str(e), e
    else:
        raise AssertionError("it succeeded")
    machine.fail("sleep 100", timeout=1)
    assert machine.succeed("echo fine", timeout=None) == "fine\n"

with subtest("waits"):
    machine.succeed("touch /tmp/there")
    machine.execute("serve 8000 /tmp >/dev/null 2>&1 &")
    machine.wait_for_open_port(8000, timeout=60)
    timed_out(lambda: machine.wait_for_file("/tmp/missing", timeout=1))
    error = timed_out(lambda: machine.wait_until_succeeds("exit 4", timeout=1))
    assert error.__notes__ == ["the last attempt of `exit 4` on machine ended with exit code 4"], error.__notes__
    timed_out(lambda: machine.wait_until_fails("true", 1))
    timed_out(lambda: machine.wait_for_open_port(8001, timeout=1))
    timed_out(lambda: machine.wait_for_closed_port(8000, timeout=1))
    timed_out(lambda: machine.wait_for_console_text("no such text", timeout=1))
    timed_out(lambda: machine.wait_until_tty_matches("1", "no such text", timeout=1))

with subtest("attempts have limits of their own"):
    machine.succeed("echo 0 > /tmp/attempts")
    command = "n=$(( $(cat /tmp/attempts) + 1 )); echo $n > /tmp/attempts; test $n -ge 3 || sleep 1000"
    _, seconds = took(lambda: machine.wait_until_succeeds(command, timeout=120, attempt_timeout=1))
    assert seconds < 60, seconds
    assert machine.succeed("cat /tmp/attempts") == "3\n"

machine.succeed("true")
