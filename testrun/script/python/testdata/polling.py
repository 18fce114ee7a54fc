from test_driver.polling_condition import PollingConditionError

calls = []


def eventually(last):
    calls.append(last)
    return len(calls) == 3


retry(eventually)
print(calls)
try:
    retry(lambda last: False, timeout=0.05)
except AssertionError as e:
    print(type(e).__name__, e)
print(retry(lambda last: last, timeout_seconds=0.01), retry(lambda _: True, 900))


@polling_condition
def healthy():
    "machine is healthy"
    machine.succeed("check")


with healthy:
    machine.succeed("first")
    machine.succeed("second, too soon for another check")

flag = True


@polling_condition(seconds_interval=0, description="flag is set")
def flagged():
    return flag


with flagged:
    machine.succeed("fine")
    flag = False
    try:
        machine.succeed("not reached")
    except PollingConditionError as e:
        print(e)
machine.succeed("left")


@polling_condition(interval=1)
def broken():
    raise ValueError


try:
    broken.wait(timeout_seconds=0.01)
except AssertionError as e:
    print(e)
flag = True
flagged.wait()
