# machines: alpha beta
# A cable is pulled and put back.
start_all()
alpha.wait_until_succeeds("ping -c 1 beta")

alpha.block()
alpha.wait_until_fails("ping -c 1 -W 1 beta")
beta.fail("ping -c 1 -W 1 alpha")
alpha.wait_until_succeeds("grep 0 /sys/class/net/eth1/carrier")
alpha.succeed("true")  # the shell is not on the network

alpha.unblock()
alpha.wait_until_succeeds("ping -c 1 beta", timeout=60)
beta.wait_until_succeeds("ping -c 1 -W 2 alpha", timeout=60)
