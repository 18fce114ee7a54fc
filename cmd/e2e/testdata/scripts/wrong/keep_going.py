# machines: machine
# exit: 1
# arguments: --keep-going
# message: Test "first" failed with error: "command `exit 11` failed (exit code 11)"
# message: Test "third" failed with error: "a mistake"
# message: the end is reached
with subtest("first"):
    machine.succeed("exit 11")

with subtest("second"):
    machine.succeed("true")

with subtest("third"):
    raise ValueError("a mistake")

machine.log("the end is reached")
