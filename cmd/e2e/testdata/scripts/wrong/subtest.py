# machines: machine
# exit: 1
# arguments: --junit-xml report.xml
# message: Test "numbers are equal" failed with error: "one is not two"
# message: !!! AssertionError: one is not two
# never: third part
with subtest("first part"):
    machine.succeed("true")

with subtest("numbers are equal"):
    assert machine.succeed("echo 1") == "2\n", "one is not two"

with subtest("third part"):
    machine.succeed("true")
