# machines: server alpha
# Socket activation: nothing runs until somebody connects.
start_all()
server.succeed("systemctl start echo.socket")
server.wait_for_unit("echo.socket")

with subtest("a TCP socket, from another machine"):
    assert server.succeed("systemctl list-units --no-legend 'echo@*'").strip() == ""
    alpha.wait_for_open_port(7777, "server")
    reply = alpha.succeed("echo hello there | nc -w 5 server 7777")
    assert reply == "hello there\n", reply

with subtest("a Unix socket"):
    server.wait_for_open_unix_socket("/run/echo.sock", timeout=30)
    assert server.succeed("echo local | nc -N -U /run/echo.sock") == "local\n"

with subtest("a stopped socket refuses"):
    server.systemctl("stop echo.socket")
    alpha.wait_for_closed_port(7777, "server")
