# machines: machine
# exit: 1
# message: !!! RequestedAssertionFailed: action timed out after
machine.connect()
machine.wait_for_console_text("no such text", timeout=1)
