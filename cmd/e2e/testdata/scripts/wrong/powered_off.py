# machines: machine
# exit: 3
# message: !!! test_driver.errors.MachineError: machine "machine"
machine.connect()
machine.succeed("poweroff; sleep 1000")
