# machines: server
# The units of a user, who stays without being logged in.
server.wait_for_unit("multi-user.target")
server.wait_for_unit("user@1000.service")
server.wait_for_file("/run/user/1000/systemd/private")

status, out = server.systemctl("is-system-running --wait", "alice")
assert out.strip() == "running", (status, out)
assert server.systemctl("is-active greeter.service", user="alice")[1] == "inactive\n"

server.start_job("greeter.service", "alice")
server.wait_for_unit("greeter.service", "alice")
assert server.succeed("cat /home/alice/greeting") == "hello from alice\n"
assert server.get_unit_info("greeter", user="alice")["Result"] == "success"
assert server.get_unit_property("greeter.service", "SubState", user="alice") == "exited"

status, _ = server.stop_job("greeter.service", user="alice")
assert status == 0
try:
    server.wait_for_unit("greeter.service", user="alice", timeout=10)
except Exception as e:
    assert "inactive" in str(e), e
else:
    raise AssertionError("a stopped unit was waited for")

assert server.systemctl("is-active greeter.service")[0] != 0, "the system has no such unit"
assert server.succeed("su - alice -c 'id -un'") == "alice\n"
