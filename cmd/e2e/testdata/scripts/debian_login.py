# machines: server
# agetty and login of a full distribution.
server.wait_for_unit("multi-user.target")
server.wait_for_unit("getty@tty1.service")

server.wait_until_tty_matches("1", "login: ")
server.send_chars("alice\n")
server.wait_until_tty_matches("1", "login: alice")
server.wait_until_succeeds("pgrep login")
server.wait_until_tty_matches("1", "Password: ")
server.send_chars("foobar\n")
server.wait_until_succeeds("pgrep -u alice -x bash")
server.send_chars("touch ~/logged-in\n")
server.wait_for_file("/home/alice/logged-in")

with subtest("a password from the outside"):
    server.succeed("passwd -S alice | grep ' P '")
    assert server.succeed("getent passwd alice").split(":")[2] == "1000"

with subtest("root"):
    server.send_chars("exit\n")
    server.wait_until_tty_matches("1", r"login:\s*$")
    server.send_chars("root\n")
    server.wait_until_succeeds("pgrep -u root -t tty1 bash")
