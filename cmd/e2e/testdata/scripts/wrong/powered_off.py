# machines: machine
# exit: 3
# message: !!! test_driver.errors.MachineError: machine "machine"
# message: !!! hint: a script that expects this calls shutdown()
machine.connect()
machine.succeed("poweroff; sleep 1000")
