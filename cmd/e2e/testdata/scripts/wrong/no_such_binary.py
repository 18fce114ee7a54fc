# machines: machine
# exit: 1
# message: !!! RequestedAssertionFailed: command `curl http://localhost` failed (exit code 127)
machine.wait_for_unit("multi-user.target")
machine.succeed("curl http://localhost")
