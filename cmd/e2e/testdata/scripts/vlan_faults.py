# machines: alpha beta router
# The network between the machines gets worse, falls apart, and heals.
import re


def ping(a, b, count=1):
    status, out = a.execute(f"ping -c {count} -W 2 {b.name}")
    times = [float(x) for x in re.findall(r"time=([\d.]+) ms", out)]
    return status == 0, times


def reaches(a, b):
    # A guest that asked in vain for an address (ARP) three times drops what
    # waits for it, a packet sent after the network healed, too: try again.
    a.wait_until_succeeds(f"ping -c 1 -W 2 {b.name}", timeout=20)


start_all()
for m in machines:
    m.wait_for_unit("network.target")
alpha.wait_until_succeeds("ping -c 1 beta")

with subtest("loss"):
    vlan1.set_loss(1.0)
    assert not ping(alpha, beta)[0]
    vlan1.heal()
    reaches(alpha, beta)

with subtest("delay"):
    vlan1.set_delay(0.3)
    ok, times = ping(alpha, beta)
    assert ok and min(times) > 300, times
    vlan1.heal()

with subtest("partition"):
    vlan1.partition([alpha, router], [beta])
    assert ping(alpha, router)[0]
    assert not ping(alpha, beta)[0]
    assert not ping(beta, router)[0]
    vlan1.heal()
    reaches(alpha, beta)
    reaches(beta, router)

with subtest("counters"):
    stats = {port["machine"]: port for port in vlan1.stats()}
    assert stats["alpha"]["from_frames"] > 0 and stats["beta"]["to_bytes"] > 0, stats
    assert sum(port["dropped"] for port in vlan1.stats()) > 0
