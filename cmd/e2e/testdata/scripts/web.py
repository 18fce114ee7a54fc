# machines: server alpha
# A web server, as the tests of services in nixpkgs look at theirs.
start_all()

server.wait_for_unit("web")
server.wait_for_open_port(80)
alpha.wait_for_unit("network-online.target")

with subtest("a page is served"):
    page = alpha.succeed("fetch http://server/")
    assert "<h1>It works</h1>" in page, f"unexpected page: {page!r}"

with subtest("a missing page is an error"):
    alpha.fail("fetch http://server/missing")
    server.wait_until_succeeds("journalctl -u web.service --no-pager | grep -F 404")

with subtest("it comes back after a crash"):
    before = server.get_unit_property("web.service", "MainPID")
    server.succeed("kill -9 $(systemctl show -p MainPID --value web.service)")
    server.wait_until_succeeds(f"test $(systemctl show -p MainPID --value web.service) -gt {before}")
    server.wait_for_unit("web.service")
    server.wait_for_open_port(80)
    assert int(server.get_unit_info("web.service")["NRestarts"]) >= 1
    alpha.wait_until_succeeds("fetch http://server/ | grep works")

with subtest("and not after a stop"):
    server.stop_job("web")
    server.wait_for_closed_port(80)
    alpha.fail("fetch http://server/")
    server.require_unit_state("web.service", "inactive")
