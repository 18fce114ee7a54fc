# machines: machine
# Durations of all generations: whole numbers, fractions, timedelta, None.
import time
from datetime import timedelta

machine.start()
machine.wait_for_unit("multi-user.target", timeout=timedelta(minutes=5))

for duration in 1, 0.5, timedelta(seconds=1), timedelta(milliseconds=300):
    status, _ = machine.execute("sleep 60", timeout=duration)
    assert status == 124, (duration, status)

assert machine.execute("echo x", True, True, None) == (0, "x\n")
machine.wait_until_succeeds("true", timeout=timedelta(hours=1))
machine.wait_until_succeeds("true", 10)
machine.wait_for_file("/etc/passwd", timedelta(seconds=30))

for sleep in [
    lambda: machine.sleep(1),
    lambda: machine.sleep(secs=1),
    lambda: machine.sleep(duration=timedelta(seconds=1)),
]:
    begin = time.monotonic()
    sleep()
    assert time.monotonic() - begin >= 0.9

assert timedelta(seconds=90) == timedelta(minutes=1.5)
retry(lambda last: True, timedelta(seconds=1))
retry(lambda last: True, timeout=1)
