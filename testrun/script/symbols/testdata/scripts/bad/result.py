if machine.succeed("id -u") == machine.get_unit_info("x"):
    number: int = machine.succeed("id -u")
