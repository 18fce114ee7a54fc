machine.copy_from_host("a")
