# machines: machine
# exit: 1
# message: !!! RequestedAssertionFailed: action timed out after
machine.wait_for_file("/tmp/never", timeout=1)
