# machines: machine
# exit: 1
# message: !!! test_driver.polling_condition.PollingConditionError: Polling condition failed: the service answers
@polling_condition(interval=0.1)
def answers():
    """the service answers"""
    return machine.execute("test ! -e /tmp/down")[0] == 0


with answers:
    machine.execute("(sleep 1; touch /tmp/down) >/dev/null 2>&1 &")
    machine.wait_for_file("/tmp/never", timeout=100)
