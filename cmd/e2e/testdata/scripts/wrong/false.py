# machines: machine
# exit: 1
# message: !!! RequestedAssertionFailed: command `test -e /nonexistent` failed (exit code 1)
# never: never reached
def check(path):
    machine.succeed(f"test -e {path}")


check("/etc/passwd")
check("/nonexistent")
print("never reached")
