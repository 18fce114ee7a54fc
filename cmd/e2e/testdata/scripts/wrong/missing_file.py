# machines: machine
# exit: 3
# message: !!! test_driver.errors.MachineError: machine "machine": copying
machine.copy_from_host("/nonexistent/settings.json", "/etc/settings.json")
