# machines: machine
# exit: 1
# message: !!! AttributeError: 'QemuMachine' object has no attribute 'wait_for_succes'
machine.wait_for_succes("true")
