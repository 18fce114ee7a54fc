# machines: server
# A timer runs its unit again and again, and one of systemd-run's once.
from datetime import timedelta

server.wait_for_unit("multi-user.target")

with subtest("a timer of the configuration"):
    server.fail("test -e /run/ticks")
    server.start_job("tick.timer")
    server.wait_for_unit("tick.timer")
    server.wait_for_file("/run/ticks")
    server.wait_until_succeeds("test $(wc -l < /run/ticks) -ge 3", timeout=timedelta(minutes=2))
    assert "tick.timer" in server.succeed("systemctl list-timers --no-pager")
    server.stop_job("tick.timer")

with subtest("a transient one"):
    server.succeed("systemd-run --on-active=1s --timer-property=AccuracySec=10ms touch /run/once")
    server.wait_for_file("/run/once", timeout=60)
