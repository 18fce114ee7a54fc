# machines: machine
# exit: 1
# message: !!! RequestedAssertionFailed: 'Linux' != 'Hurd'
# message: !!!  : the kernel
t.assertEqual(machine.succeed("uname").strip(), "Hurd", "the kernel")
