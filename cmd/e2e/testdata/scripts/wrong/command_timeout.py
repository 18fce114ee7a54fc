# machines: machine
# exit: 1
# message: !!! RequestedAssertionFailed: command `sleep 1000` failed (exit code 124)
machine.succeed("sleep 1000", timeout=1)
