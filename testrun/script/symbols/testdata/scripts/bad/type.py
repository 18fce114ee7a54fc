machine.wait_for_open_port("http")
