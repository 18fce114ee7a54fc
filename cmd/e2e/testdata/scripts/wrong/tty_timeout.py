# machines: machine
# exit: 1
# message: !!! RequestedAssertionFailed: action timed out after
machine.wait_until_tty_matches("1", "login: ")
machine.wait_until_tty_matches("1", "Welcome to NixOS", timeout=1)
