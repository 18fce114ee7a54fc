# machines: machine
# The host talks to a service of the guest.
import socket
import urllib.error
import urllib.request

with socket.socket() as probe:  # a port that nobody has
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]

machine.wait_for_unit("multi-user.target")
machine.succeed("mkdir -p /srv && echo hello, host > /srv/index.html")
machine.execute("serve 80 /srv >/dev/null 2>&1 &")
machine.wait_for_open_port(80)
machine.forward_port(host_port=port, guest_port=80)

with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as response:
    assert response.status == 200
    assert response.read() == b"hello, host\n"

try:
    urllib.request.urlopen(f"http://127.0.0.1:{port}/missing", timeout=60)
except urllib.error.HTTPError as e:
    assert e.code == 404, e
else:
    raise Exception("a page that does not exist")
