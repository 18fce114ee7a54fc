# machines: machine
# exit: 1
# message: !!! RequestedAssertionFailed: command `true` unexpectedly succeeded
machine.fail("true")
