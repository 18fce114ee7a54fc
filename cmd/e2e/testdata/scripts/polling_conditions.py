# machines: machine
# Conditions that hold, that begin to hold, and that break during a wait.
import time
from datetime import timedelta

machine.wait_for_unit("multi-user.target")
machine.succeed("touch /tmp/alive")
checks = 0


@polling_condition
def alive():
    "the file /tmp/alive is there"
    global checks
    checks += 1
    machine.succeed("test -e /tmp/alive")


@polling_condition(seconds_interval=0.2, description="it is early")
def early():
    return True


with subtest("it holds"):
    with alive, early:
        machine.succeed("true")
        machine.wait_until_succeeds("sleep 1; true")
    assert checks >= 1

with subtest("it is not looked at afterwards"):
    before = checks
    machine.succeed("true")
    time.sleep(2.1)
    machine.succeed("true")
    assert checks == before

with subtest("it breaks during a wait"):
    machine.execute("(sleep 2; rm /tmp/alive) >/dev/null 2>&1 &")
    begin = time.monotonic()
    try:
        with alive:
            machine.wait_for_file("/tmp/never", timeout=120)
    except Exception as e:
        assert type(e).__name__ == "PollingConditionError", type(e)
        assert str(e) == "Polling condition failed: the file /tmp/alive is there", e
    else:
        raise Exception("the condition did not break")
    assert time.monotonic() - begin < 60, "noticed too late"

with subtest("it is waited for"):
    machine.execute("(sleep 1; touch /tmp/alive) >/dev/null 2>&1 &")
    alive.wait(timeout=timedelta(minutes=1))
    machine.succeed("test -e /tmp/alive")


@polling_condition(interval=timedelta(seconds=1))
def never():
    return False


with subtest("it is waited for in vain"):
    try:
        never.wait(timeout_seconds=1)
    except Exception as e:
        assert "timed out" in str(e), e
    else:
        raise Exception("never came")
