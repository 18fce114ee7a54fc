# machines: machine
# exit: 1
# message: !!! RequestedAssertionFailed: unit "databse.service" is inactive and there are no pending jobs
machine.wait_for_unit("databse.service")
