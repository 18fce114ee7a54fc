# machines: alpha beta router
# Three machines pass a token around.
start_all()
ring = [alpha, beta, router]
PORT = 4000

for m in ring:
    m.succeed("ip link show eth1 up | grep UP")

token = "0"
for lap in range(2):
    for here, there in zip(ring, ring[1:] + ring[:1]):
        with subtest(f"lap {lap}: {here.name} to {there.name}"):
            there.succeed("rm -f /tmp/token")
            there.execute(f"(nc -l -p {PORT} > /tmp/token.part && mv /tmp/token.part /tmp/token) >/dev/null 2>&1 &")
            there.wait_until_succeeds(f"netstat -ltn | grep -q :{PORT}")
            here.succeed(f"echo $(( {token} + 1 )) | nc -w 5 {there.name} {PORT}")
            there.wait_for_file("/tmp/token", timeout=60)
            token = there.succeed("cat /tmp/token").strip()
            PORT += 1
t.assertEqual(token, "6")

with subtest("everybody sees everybody"):
    for m in machines:
        for other in machines:
            m.succeed(f"ping -c 1 {other.name}")
