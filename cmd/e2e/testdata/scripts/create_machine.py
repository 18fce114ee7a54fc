# machines: alpha
# environment: BETA={beta}
# Machines of the script's own.
command = os.environ["BETA"]

with subtest("by a start script"):
    own = create_machine(command, name="own")
    assert own.name == "own" and own not in machines
    own.start()
    own.wait_for_unit("multi-user.target")
    assert own.succeed("hostname") == "beta\n"
    own.succeed("echo 1 > /root/state; sync")
    own.crash()

with subtest("by a command line"):
    line = create_machine(f"QEMU_KERNEL_PARAMS=hello=world {command}", name="line")
    line.succeed("grep hello=world /proc/cmdline")
    line.fail("test -e /root/state")  # a disk of its own
    line.shutdown()

with subtest("in the network of the others"):
    alpha.wait_for_unit("network.target")
    peer = create_machine(command)
    peer.wait_for_unit("network.target")
    peer.wait_until_succeeds("ping -c 1 alpha")

with subtest("the same name again keeps its disk if asked to"):
    again = create_machine(command, name="own", keep_machine_state=True)
    again.start()
    assert again.succeed("cat /root/state") == "1\n"
