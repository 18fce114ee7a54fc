# machines: alpha router far
# A machine between two networks forwards, refuses and forgets packets.
from contextlib import contextmanager

start_all()
for m in machines:
    m.wait_for_unit("network.target")

ROUTER_1 = router.succeed("ip -4 -o addr show eth1 | awk '{print $4}'").split("/")[0]
ROUTER_2 = router.succeed("ip -4 -o addr show eth2 | awk '{print $4}'").split("/")[0]
FAR = far.succeed("ip -4 -o addr show eth1 | awk '{print $4}'").strip().split("/")[0]
assert FAR.startswith("192.168.2."), FAR


@contextmanager
def route(m, *words):
    words = " ".join(words)
    m.succeed(f"ip route add {words}")
    try:
        yield
    finally:
        m.succeed(f"ip route del {words}")


with subtest("the neighbour is near and the other network is not"):
    alpha.succeed(f"ping -c 1 {ROUTER_1}")
    alpha.fail(f"ping -c 1 -W 1 {FAR}")

with subtest("through the router"):
    router.succeed("echo 1 > /proc/sys/net/ipv4/ip_forward")
    far.succeed(f"ip route add 192.168.1.0/24 via {ROUTER_2}")
    with route(alpha, "192.168.2.0/24", "via", ROUTER_1):
        alpha.wait_until_succeeds(f"ping -c 1 {FAR}")
        far.execute("(echo greetings from afar | nc -l -p 9000) >/dev/null 2>&1 &")
        assert alpha.wait_until_succeeds(f"nc -w 2 {FAR} 9000 </dev/null | grep .").startswith("greetings")

        for kind in "blackhole", "prohibit", "unreachable":
            with subtest(f"the router's route is {kind}"), route(router, kind, f"{FAR}/32"):
                alpha.fail(f"ping -c 1 -W 1 {FAR}")
        alpha.succeed(f"ping -c 1 {FAR}")
    alpha.fail(f"ping -c 1 -W 1 {FAR}")
