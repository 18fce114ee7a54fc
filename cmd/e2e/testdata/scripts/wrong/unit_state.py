# machines: machine
# exit: 1
# message: !!! RequestedAssertionFailed: Expected unit 'multi-user.target' to to be in state 'failed' but it is in state 'active'
machine.require_unit_state("multi-user.target", "failed")
