# machines: server alpha
# What a firewall drops and refuses is seen from outside only.
import time

RULES = """
flush ruleset
table inet filter {
  chain input {
    type filter hook input priority 0; policy drop;
    iif lo accept
    ct state established,related accept
    icmp type echo-request limit rate 50/second accept
    tcp dport 80 counter accept
    tcp dport 81 reject with tcp reset
  }
}
"""

start_all()
server.wait_for_unit("web.service")
server.wait_for_open_port(80)
server.succeed("systemd-run --unit=more sh -c '/run/current-system/sw/bin/serve 8080 /etc/web'")
server.wait_for_open_port(8080)
alpha.wait_for_open_port(8080, "server")

server.succeed(f"nft -f - <<'EOF'\n{RULES}\nEOF")

with subtest("what is allowed passes"):
    alpha.succeed("ping -c 1 server")
    assert "It works" in alpha.succeed("fetch http://server/")
    server.succeed("nft list ruleset | grep -E 'dport 80 counter packets [1-9]'")

with subtest("what is refused fails at once"):
    begin = time.monotonic()
    alpha.fail("fetch http://server:81/")
    assert time.monotonic() - begin < 8, "a refused connection was waited for"

with subtest("what is dropped never answers"):
    status, _ = alpha.execute("timeout 2 nc server 8080 </dev/null")
    assert status == 124, status
    server.succeed("fetch http://localhost:8080/")  # from inside it does

with subtest("a wait for a dropped port ends at its time-out"):
    begin = time.monotonic()
    try:
        alpha.wait_for_open_port(8080, "server", timeout=3)
    except Exception as e:
        assert "timed out" in str(e), e
    else:
        raise Exception("the port is open")
    assert time.monotonic() - begin < 15

server.succeed("nft flush ruleset")
alpha.wait_for_open_port(8080, addr="server")
