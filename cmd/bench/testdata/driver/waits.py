# How long a wait goes on after what it waits for has come. The guest notes the
# time since its boot at that moment; what a look at the clock costs is taken off.
import os
import statistics
import time

CLOCK = "head -n 1 /proc/uptime"  # no quotes: it goes through a unit, too
WAITS = int(os.environ["BENCH_COUNT"])
KIND = os.environ["BENCH_GUEST"]

machine.wait_for_unit("multi-user.target")
looks = []
for _ in range(10):
    begin = time.monotonic()
    machine.succeed(CLOCK)
    looks.append(time.monotonic() - begin)
look = statistics.median(looks)


def background(command):
    machine.succeed(f"({command}) >/dev/null 2>&1 </dev/null &")


def file(i, delay):
    background(f"sleep {delay}; {CLOCK} > /run/ready{i}; touch /run/file{i}")
    return lambda: machine.wait_for_file(f"/run/file{i}")


def command(i, delay):
    background(f"sleep {delay}; {CLOCK} > /run/ready{i}; echo yes > /run/word{i}")
    return lambda: machine.wait_until_succeeds(f"grep -q yes /run/word{i}")


def port(i, delay):
    listen = "busybox nc -l -p" if KIND == "mini" else "nc -l"
    background(f"sleep {delay}; {CLOCK} > /run/ready{i}; {listen} {5000 + i}")
    return lambda: machine.wait_for_open_port(5000 + i)


def unit(i, delay):
    if KIND == "mini":
        machine.succeed(f"echo activating > /run/mini/units/bench{i}.service")
        background(f"sleep {delay}; {CLOCK} > /run/ready{i}; echo active > /run/mini/units/bench{i}.service")
    else:
        machine.succeed(
            f"systemd-run --no-block --quiet --unit=bench{i} -p Type=oneshot -p RemainAfterExit=yes "
            f"sh -c 'sleep {delay}; {CLOCK} > /run/ready{i}'"
        )
    return lambda: machine.wait_for_unit(f"bench{i}.service")


late = {}
for i in range(WAITS):
    prepare = [file, command, port, unit][i % 4]
    # Spread evenly over the second that the other side sleeps.
    wait = prepare(i, 1 + i / WAITS)
    wait()
    end = float(machine.succeed(CLOCK).split()[0])
    ready = float(machine.succeed(f"cat /run/ready{i}").split()[0])
    late.setdefault(prepare.__name__, []).append(max(0, end - ready - look))
for kind, values in late.items():
    print("BENCH wait-" + kind, statistics.mean(values), flush=True)
every = [v for values in late.values() for v in values]
print("BENCH wait-mean", statistics.mean(every), flush=True)
print("BENCH wait-sum", sum(every) / WAITS * 20, flush=True)
