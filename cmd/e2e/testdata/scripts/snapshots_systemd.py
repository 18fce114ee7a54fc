# machines: vault
# Services of systemd go on where they were saved.
import time

vault.wait_for_unit("multi-user.target")
vault.wait_for_file("/run/counter")


def timed(what, f, *args):
    begin = time.time()
    f(*args)
    vault.log(f"{what} in {time.time() - begin:.2f} s")


vault.succeed("echo 100 > /root/balance; sync")
timed("saved", vault.save, "rich")
for i in range(3):
    vault.succeed("systemctl stop counter; echo 0 > /root/balance; sync", "rm -rf /var/log/journal /run/systemd/system/*")
    assert vault.get_unit_property("counter.service", "ActiveState") == "inactive"
    timed("restored", vault.restore, "rich")
    vault.require_unit_state("counter.service", "active")
    assert vault.succeed("cat /root/balance") == "100\n"
    n = int(vault.succeed("cat /run/counter"))
    vault.wait_until_succeeds(f"test $(cat /run/counter) -gt {n}")
    assert vault.succeed("cat /run/restored") == "restored\n"  # of warm-restored.target
    vault.succeed("logger -t test back again", "journalctl -t test | grep -q 'back again'")
    assert abs(float(vault.succeed("echo $EPOCHREALTIME")) - time.time()) < 1

for unit in "counter", "systemd-journald":
    with subtest(f"without {unit}", isolate=True):
        vault.succeed("systemctl is-active counter")
        vault.succeed(f"systemctl kill -s KILL {unit}.service; systemctl stop {unit}.service || true")
vault.require_unit_state("counter.service", "active")
