# machines: keeper twin
# message: (finished: saving keeper, twin
# Machines are saved and put back within a script, alone and together.
import os
import threading
import time

start_all()
for m in machines:
    m.wait_for_unit("multi-user.target")
keeper.wait_until_succeeds("ping -c 1 twin")
uuids = set()


def is_sane(m):
    """What a test expects of a machine, whenever it was booted."""
    before = time.time()
    now = float(m.succeed("echo $EPOCHREALTIME"))
    assert before - 0.1 < now < time.time() + 0.1, (before, now, time.time())
    uuid = m.succeed("cat /proc/sys/kernel/random/uuid")
    assert uuid not in uuids
    uuids.add(uuid)
    (m.shared_dir / "from-host").write_text(uuid)
    assert m.succeed("cat /tmp/shared/from-host") == uuid
    assert len(m.succeed("seq 100000").split()) == 100000
    status, _ = m.execute("echo out; echo err >&2; exit 3")
    assert status == 3
    m.copy_from_host(m.shared_dir / "from-host", "/tmp/copied")
    assert m.succeed("cat /tmp/copied") == uuid
    m.screenshot("screen")


with subtest("memory and disk are what they were"):
    keeper.succeed("echo saved | tee /root/note > /run/note")
    begin = time.time()
    keeper.save("noted")
    keeper.log(f"saved in {time.time() - begin:.2f} s")
    is_sane(keeper)
    for i in range(3):
        keeper.succeed(f"echo changed {i} | tee /root/note > /run/note; touch /root/other; sync")
        begin = time.time()
        keeper.restore("noted")
        keeper.log(f"restored in {time.time() - begin:.2f} s")
        for _ in range(2):
            assert keeper.succeed("cat /root/note /run/note") == "saved\nsaved\n"
            keeper.fail("test -e /root/other")
            keeper.succeed("sync; echo 3 > /proc/sys/vm/drop_caches")
        is_sane(keeper)

with subtest("several at a time, in any order, and under the same name again"):
    keeper.succeed("echo second > /run/note")
    keeper.save("second")
    keeper.succeed("echo third > /run/note")
    keeper.save("third")
    for name, text in [("second", "second"), ("noted", "saved"), ("third", "third")]:
        keeper.restore(name)
        assert keeper.succeed("cat /run/note") == f"{text}\n"
    keeper.save("second")
    keeper.restore("noted")
    keeper.restore("second")
    assert keeper.succeed("cat /run/note") == "third\n"

with subtest("a block is undone, and its exception goes on"):
    for i in range(2):
        try:
            with keeper.rollback():
                keeper.succeed("rm -r /root /run/note; sync")
                raise KeyError(i)
        except KeyError as error:
            assert error.args == (i,)
        assert keeper.succeed("cat /run/note") == "third\n"
    with keeper.rollback():
        keeper.succeed("echo outer > /run/note")
        with keeper.rollback():
            keeper.succeed("echo inner > /run/note")
        assert keeper.succeed("cat /run/note") == "outer\n"
        with keeper.rollback():
            keeper.succeed("echo inner > /run/note")
        assert keeper.succeed("cat /run/note") == "outer\n"
    assert keeper.succeed("cat /run/note") == "third\n"

with subtest("a shell that does not answer any more does again"):
    with keeper.rollback():
        keeper.execute("sleep 1000", check_return=False, check_output=False)
    assert keeper.succeed("echo here") == "here\n"
    is_sane(keeper)

with subtest("the console has not said what was undone"):
    keeper.succeed("echo early words > /dev/ttyS0")
    keeper.save("quiet")
    for _ in range(2):
        keeper.succeed("echo late words > /dev/ttyS0")
        keeper.wait_for_console_text("late words", timeout=30)
        keeper.restore("quiet")
        assert "late words" not in keeper.get_console_log()
        try:
            keeper.wait_for_console_text("late words", timeout=1)
        except Exception as error:
            assert "timed out" in str(error), error
        else:
            raise Exception("found what was undone")
        keeper.wait_for_console_text("early words", timeout=30)

with subtest("a command of another thread is waited for, but not long"):
    thread = threading.Thread(target=keeper.succeed, args=["sleep 2"])
    thread.start()
    time.sleep(0.5)
    keeper.save("waited")
    thread.join()
    thread = threading.Thread(target=keeper.succeed, args=["sleep 10"])
    thread.start()
    time.sleep(0.5)
    for operation in keeper.save, keeper.restore:
        try:
            operation("waited")
        except Exception as error:
            assert "a command runs in the guest: sleep 10" in str(error), error
        else:
            raise Exception("done while a command runs")
    thread.join()

with subtest("who waits for something waits for it in the restored machine"):
    thread = threading.Thread(target=keeper.wait_for_file, args=["/run/awaited"])
    thread.start()
    time.sleep(0.5)
    keeper.restore("waited")
    keeper.succeed("touch /run/awaited")
    thread.join(30)
    assert not thread.is_alive()

with subtest("links are what they were"):
    with keeper.rollback():
        keeper.block()
        keeper.fail("ping -c 1 -W 2 twin")
    keeper.wait_until_succeeds("ping -c 1 -W 2 twin")

# A connection that lasts. Its ends must not disagree on what they have sent.
twin.execute("(sleep 1000 | nc -l -p 1234 >/run/ticks) >/dev/null 2>&1 &")
twin.wait_until_succeeds("netstat -ltn | grep -q :1234")
keeper.execute(
    "(n=0; while sleep 0.2; do echo $((n += 1)); done | nc twin 1234) >/dev/null 2>&1 &"
)
twin.wait_until_succeeds("test $(wc -l < /run/ticks) -gt 3")

for i in range(3):
    with subtest(f"isolated: {i}", isolate=True):
        for m in machines:
            m.fail("test -e /root/dirty", "test -e /run/dirty")
            m.succeed("touch /root/dirty /run/dirty; sync")
        ticks = int(twin.succeed("tail -n 1 /run/ticks"))
        twin.wait_until_succeeds(f"test $(tail -n 1 /run/ticks) -gt {ticks + 5}", timeout=60)
        os.environ["NOT_OF_THE_MACHINES"] = str(i)
        if i == 1:
            twin.execute("killall nc")

with subtest("and then both go on together"):
    assert os.environ["NOT_OF_THE_MACHINES"] == "2"
    ticks = int(twin.succeed("tail -n 1 /run/ticks"))
    twin.wait_until_succeeds(f"test $(tail -n 1 /run/ticks) -gt {ticks + 5}", timeout=60)
    numbers = [int(n) for n in twin.succeed("cat /run/ticks").split()]
    assert numbers == list(range(1, len(numbers) + 1)), numbers
    for m in machines:
        m.fail("test -e /root/dirty", "test -e /run/dirty")
        is_sane(m)
    keeper.succeed("ping -c 1 twin")

with subtest("what is restored can be shut down, and has its disk"):
    keeper.restore("noted")
    keeper.shutdown()
    keeper.start()
    assert keeper.succeed("cat /root/note") == "saved\n"
