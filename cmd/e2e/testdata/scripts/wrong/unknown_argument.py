# machines: machine
# exit: 1
# message: !!! TypeError:
machine.succeed("true", time_out=5)
