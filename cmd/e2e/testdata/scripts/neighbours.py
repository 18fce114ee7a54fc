# machines: alpha beta
# Two machines talk, in both directions and at once.
start_all()
alpha.wait_for_unit("network.target")
beta.wait_for_unit("network.target")

with subtest("by name"):
    alpha.wait_until_succeeds("ping -c 1 beta")
    beta.succeed("ping -c 1 alpha")

with subtest("a file over the network"):
    alpha.succeed("head -c 2000000 /dev/urandom > /tmp/blob")
    beta.execute("(sleep 100 | nc -l -p 1234 > /tmp/received) >/dev/null 2>&1 &")
    beta.wait_until_succeeds("netstat -ltn | grep -q :1234")
    alpha.succeed("nc -w 30 beta 1234 < /tmp/blob")
    want = alpha.succeed("sha256sum < /tmp/blob")
    beta.wait_until_succeeds(f"test \"$(sha256sum < /tmp/received)\" = '{want.strip()}'")

with subtest("a service for the other"):
    beta.succeed("mkdir -p /srv && echo from beta > /srv/index.html")
    beta.execute("serve 8000 /srv >/dev/null 2>&1 &")
    beta.wait_for_open_port(8000)
    alpha.wait_for_open_port(8000, "beta")
    assert alpha.succeed("fetch http://beta:8000/") == "from beta\n"

with subtest("addresses"):
    for number, m in enumerate([alpha, beta], 1):
        m.succeed(f"ip addr show eth1 | grep 192.168.1.{number}/")
