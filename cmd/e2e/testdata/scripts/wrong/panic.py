# machines: machine
# exit: 3
# message: !!! test_driver.errors.MachineError: machine "machine"
# message: Kernel panic - not syncing: sysrq triggered crash
machine.connect()
machine.succeed("echo c > /proc/sysrq-trigger; sleep 1000")
