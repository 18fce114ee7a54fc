machine.wait_for_unit("a", time_out=5)
