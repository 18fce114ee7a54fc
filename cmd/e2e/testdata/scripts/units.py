# machines: server
# States, properties and jobs of units, and what the driver says of them.
import re

server.wait_for_unit("multi-user.target")

with subtest("a unit that takes a while"):
    server.systemctl("start --no-block slow.service")
    server.require_unit_state("slow.service", "activating")
    server.wait_for_unit("slow")
    server.require_unit_state("slow.service")
    info = server.get_unit_info("slow")
    assert (info["ActiveState"], info["SubState"], info["Type"]) == ("active", "running", "notify"), info

with subtest("a unit that fails"):
    status, _ = server.start_job("broken.service")
    server.wait_until_succeeds("systemctl is-failed broken.service")
    try:
        server.wait_for_unit("broken.service")
    except Exception as e:
        assert str(e) == 'unit "broken.service" reached state "failed"', e
    else:
        raise Exception("broken.service works")
    assert server.get_unit_property("broken.service", "ExecMainStatus") == "3"
    server.succeed("journalctl -u broken.service --no-pager -o cat | grep -x 'the configuration is missing'")
    assert server.systemctl("reset-failed broken.service") == (0, "")

with subtest("a unit that nobody has started"):
    with t.assertRaisesRegex(Exception, re.escape('unit "tick.service" is inactive and there are no pending jobs')):
        server.wait_for_unit("tick.service")
    with t.assertRaisesRegex(Exception, "in state 'active' but it is in state 'inactive'"):
        server.require_unit_state("tick.service")

with subtest("systemctl itself"):
    assert server.systemctl("is-active web.service") == (0, "active\n")
    status, out = server.systemctl("is-active tick.service")
    assert (status, out) == (3, "inactive\n"), (status, out)
    assert server.systemctl("is-enabled no-such-unit")[0] != 0

with subtest("nothing has failed"):
    assert server.succeed("systemctl list-units --failed --no-legend").strip() == ""
