# machines: machine
# exit: 124
# timeout: 3
# message: !!! the global time-out of the test was reached (3.0 seconds)
machine.succeed("sleep 1000")
