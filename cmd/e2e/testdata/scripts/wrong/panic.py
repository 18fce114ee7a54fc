# machines: machine
# exit: 3
# message: !!! test_driver.errors.MachineError: machine "machine": the guest's kernel panicked
machine.connect()
machine.succeed("echo c > /proc/sysrq-trigger; sleep 1000")
