# Whatever real Python can do.
from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

from test_driver.errors import MachineError, RequestedAssertionFailed
from test_driver.machine import Machine as M


@dataclass
class Point:
    x: int
    tags: list[str] = field(default_factory=list)


@contextlib.contextmanager
def logged(name):
    print("enter", name)
    yield name.upper()
    print("leave", name)


def helper(m: M, *commands: str) -> str:
    return m.succeed(*commands)


value = 7
print(f"{value=} {value:>4} {Point(1)!r}", sys.argv, __name__)
with logged("a") as upper:
    print(upper, helper(machine, f"echo {value}"))
print(machine is only, json.loads('{"a": [1, 2]}'))

for command in ("false", "die", "boom"):
    try:
        machine.succeed(command)
    except (RequestedAssertionFailed, MachineError, RuntimeError) as e:
        print(type(e).__name__, e, isinstance(e, AssertionError))

print(subprocess.run(["cat"], capture_output=True).stdout, subprocess.check_output(["echo", "sub"]))
print(subprocess.check_output(["sh", "-c", "test -e /proc/self/fd/3 && echo open || echo closed"]))

results = [None] * 20


def work(i):
    results[i] = machine.execute(f"thread {i}")[1]


threads = [threading.Thread(target=work, args=(i,)) for i in range(len(results))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(results == [f"output of thread {i}\n" for i in range(20)])

with tempfile.TemporaryDirectory() as directory:
    os.chdir(directory)
    os.environ["VMTEST_DISK"] = "é.img"
    machine.start()
    print(Path.cwd().name == Path(directory).name)
    os.chdir("/")
    del os.environ["VMTEST_DISK"]
machine.start()
print((lambda: [x for x in range(3) if (y := x) > 0])(), {*"a"}, not value)
print("end without newline", end="")
