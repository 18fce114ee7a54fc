# machines: machine
# exit: 2
# message: SyntaxError: expected ':'
# never: start all VMs
start_all()
if machine.is_up()
    machine.succeed("true")
