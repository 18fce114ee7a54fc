# machines: server
# The journal: what services and the test write, and the terminal's text in it.
import json

server.wait_for_unit("multi-user.target")
server.wait_for_unit("getty@tty1.service")

server.succeed("echo 'marker one' | systemd-cat -t test-suite -p warning")
entry = json.loads(server.wait_until_succeeds("journalctl -t test-suite -o json --no-pager | grep marker"))
assert entry["MESSAGE"] == "marker one" and entry["PRIORITY"] == "4", entry

for i in range(3):
    server.succeed(f"logger -t loop 'round {i}'")
server.wait_until_succeeds("test $(journalctl -t loop -o cat --no-pager | grep -c round) -eq 3")
server.fail("journalctl -t loop --no-pager | grep 'round 3'")

with subtest("it is on the serial console, too"):
    server.wait_for_console_text("marker one")

with subtest("text of a terminal"):
    server.wait_until_tty_matches("1", "server login: ")
    server.dump_tty_contents("1")
    server.wait_until_succeeds("journalctl --no-pager -o cat | grep 'server login:'")
