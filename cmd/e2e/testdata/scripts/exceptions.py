# machines: machine
# Scripts catch what the driver raises, and go on.
import contextlib

from test_driver.errors import MachineError, RequestedAssertionFailed

machine.wait_for_unit("multi-user.target")


class Unwanted(Exception):
    pass


with subtest("the kinds of exceptions"):
    assert not issubclass(MachineError, RequestedAssertionFailed)
    try:
        machine.succeed("exit 7")
    except RequestedAssertionFailed as e:
        assert str(e) == "command `exit 7` failed (exit code 7)", e
    else:
        raise Unwanted("exit 7 succeeded")
    with t.assertRaises(RequestedAssertionFailed):
        machine.fail("true")
    with contextlib.suppress(RequestedAssertionFailed):
        machine.wait_for_file("/nonexistent", timeout=1)

with subtest("cleanup is done whatever happens"):
    trace = []
    try:
        try:
            machine.succeed("touch /tmp/mess")
            raise KeyError("a bug of the script")
        finally:
            machine.succeed("rm /tmp/mess")
            trace.append("cleaned")
    except KeyError:
        trace.append("caught")
    assert trace == ["cleaned", "caught"]
    machine.fail("test -e /tmp/mess")

with subtest("an error of one's own, with its cause"):
    try:
        try:
            machine.succeed("false")
        except RequestedAssertionFailed as e:
            raise Unwanted("the service is broken") from e
    except Unwanted as e:
        assert "command `false` failed" in str(e.__cause__)

with subtest("a subtest that fails can be caught, too"):
    try:
        with subtest("this one is to fail"):
            assert machine.succeed("echo 1") == "2\n", "one is not two"
    except AssertionError as e:
        assert "one is not two" in str(e)

with subtest("after all that the machine is in order"), contextlib.ExitStack() as stack:
    for i in range(3):
        stack.callback(machine.succeed, f"rmdir /tmp/dir{i}")
        machine.succeed(f"mkdir /tmp/dir{i}")
machine.fail("ls -d /tmp/dir*")
