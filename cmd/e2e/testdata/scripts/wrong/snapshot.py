# machines: machine
# exit: 3
# message: !!! test_driver.errors.MachineError: machine "machine": cannot be saved or restored: it cannot be saved: its /nix/store is a share (9p) of the host's
# message: !!! hint: set prebuild.storeImage, or virtualisation.useNixStoreImage, to true
# never: Guest has done it
with subtest("not begun", isolate=True):
    pass
machine.wait_for_unit("multi-user.target")
with subtest("isolated", isolate=True):
    machine.log("Guest has done it")
