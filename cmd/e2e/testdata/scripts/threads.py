# machines: alpha beta
# Threads of a script, on different machines and on the same.
import threading
import time
from concurrent.futures import ThreadPoolExecutor

start_all()


def boot(m):
    m.wait_for_unit("multi-user.target")
    return m.succeed("hostname").strip()


with ThreadPoolExecutor() as pool:
    assert list(pool.map(boot, machines)) == ["alpha", "beta"]

    with subtest("at the same time"):
        begin = time.monotonic()
        list(pool.map(lambda m: m.succeed("sleep 3"), machines))
        took = time.monotonic() - begin
        assert took < 5.9, f"one after the other: {took:.1f} s"

    with subtest("one machine, many threads"):
        results = list(pool.map(lambda i: alpha.succeed(f"echo {i}"), range(20)))
        assert results == [f"{i}\n" for i in range(20)]

    with subtest("an exception of a thread"):
        future = pool.submit(beta.succeed, "false")
        assert "command `false` failed" in str(future.exception())

with subtest("one waits while the other works"):
    event = threading.Event()

    def waiter():
        alpha.wait_for_file("/tmp/signal", timeout=120)
        event.set()

    thread = threading.Thread(target=waiter)
    thread.start()
    alpha.succeed("true")
    assert not event.is_set()
    alpha.succeed("touch /tmp/signal")
    thread.join(60)
    assert event.is_set()
