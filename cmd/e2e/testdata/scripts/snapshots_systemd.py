# machines: bank
# Services of systemd go on where they were saved.
import time

bank.wait_for_unit("multi-user.target")
bank.wait_for_file("/run/counter")


def timed(what, f, *args):
    begin = time.time()
    f(*args)
    bank.log(f"{what} in {time.time() - begin:.2f} s")


bank.succeed("echo 100 > /root/balance; sync")
timed("saved", bank.save, "rich")
for i in range(3):
    bank.succeed("systemctl stop counter; echo 0 > /root/balance; sync", "rm -rf /var/log/journal /run/systemd/system/*")
    assert bank.get_unit_property("counter.service", "ActiveState") == "inactive"
    timed("restored", bank.restore, "rich")
    bank.require_unit_state("counter.service", "active")
    assert bank.succeed("cat /root/balance") == "100\n"
    n = int(bank.succeed("cat /run/counter"))
    bank.wait_until_succeeds(f"test $(cat /run/counter) -gt {n}")
    assert bank.succeed("cat /run/restored") == "restored\n"  # of warm-restored.target
    bank.succeed("logger -t test back again", "journalctl -t test | grep -q 'back again'")
    assert abs(float(bank.succeed("echo $EPOCHREALTIME")) - time.time()) < 1

for unit in "counter", "systemd-journald":
    with subtest(f"without {unit}", isolate=True):
        bank.succeed("systemctl is-active counter")
        bank.succeed(f"systemctl kill -s KILL {unit}.service; systemctl stop {unit}.service || true")
bank.require_unit_state("counter.service", "active")
