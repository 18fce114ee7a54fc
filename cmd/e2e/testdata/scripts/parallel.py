# machines: alpha beta
# Several commands at once, standard error on its own, all machines together.
import time

start_all()

with subtest("standard error apart"):
    r = alpha.run("echo out; echo err >&2; exit 3")
    assert (r.status, r.stdout, r.stderr) == (3, "out\n", "err\n"), r

with subtest("several commands on one machine"):
    begin = time.monotonic()
    outputs = alpha.parallel("sleep 2; echo a", "sleep 2; echo b", "sleep 2; echo c")
    assert outputs == ["a\n", "b\n", "c\n"], outputs
    assert time.monotonic() - begin < 5.5

with subtest("one of them fails"):
    try:
        alpha.parallel("true", "echo broken; exit 4", "true")
    except Exception as e:
        assert "exit 4" in str(e), e
    else:
        raise Exception("nobody noticed")

with subtest("all machines"):
    assert succeed_all("hostname") == {"alpha": "alpha\n", "beta": "beta\n"}
    assert succeed_all("echo $((6 * 7))", machines=[beta]) == {"beta": "42\n"}
