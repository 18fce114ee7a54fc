# machines: machine
# retry() with the script's own functions.
import time
from datetime import timedelta

machine.wait_for_unit("multi-user.target")
attempts = []


def third_time(last):
    attempts.append(last)
    return len(attempts) == 3


retry(third_time)
assert attempts == [False, False, False], attempts

with subtest("the last attempt is told so"):
    seen = []
    begin = time.monotonic()
    try:
        retry(lambda last: seen.append(last), timeout_seconds=1)
    except Exception as e:
        assert "action timed out after" in str(e), e
    else:
        raise Exception("retry() returned")
    assert seen[-1] is True and not any(seen[:-1]), seen
    assert time.monotonic() - begin < 30

with subtest("with a machine"):
    machine.execute("(for i in 1 2 3 4; do sleep 0.5; echo $i; done) > /tmp/lines 2>/dev/null &")
    retry(lambda _: int(machine.succeed("wc -l < /tmp/lines")) == 4, timeout=timedelta(minutes=2))

with subtest("an exception ends it"):
    with t.assertRaises(ZeroDivisionError):
        retry(lambda last: 1 / 0)
