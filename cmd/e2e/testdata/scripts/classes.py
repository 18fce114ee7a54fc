# machines: alpha beta
# A test suite written with all that Python has.
from __future__ import annotations

import functools
import itertools
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


def test(function):
    @functools.wraps(function)
    def run(self, *args, **kwargs):
        with subtest(f"{self.machine.name}: {function.__name__.replace('_', ' ')}"):
            return function(self, *args, **kwargs)

    run.is_test = True
    return run


@dataclass
class Suite:
    machine: Machine
    files: list[str] = field(default_factory=list)
    serial: typing.ClassVar = itertools.count()

    def __enter__(self) -> Suite:
        self.machine.wait_for_unit("multi-user.target")
        return self

    def __exit__(self, *_: object) -> None:
        if self.files:
            self.machine.succeed("rm " + " ".join(self.files))

    @property
    def hostname(self) -> str:
        return self.machine.succeed("hostname").strip()

    @contextmanager
    def file(self, content: str) -> Iterator[str]:
        name = f"/tmp/suite-{next(self.serial)}"
        self.machine.succeed(f"printf %s '{content}' > {name}")
        self.files.append(name)
        yield name

    @test
    def has_its_name(self) -> None:
        t.assertEqual(self.hostname, self.machine.name)

    @test
    def keeps_files(self) -> None:
        with self.file("a") as a, self.file("b") as b:
            assert self.machine.succeed(f"cat {a} {b}") == "ab"

    @test
    def counts(self) -> None:
        match self.machine.execute("seq 3 | wc -l"):
            case 0, out if (n := int(out)) == 3:
                assert n == 3
            case other:
                raise AssertionError(other)

    def run(self) -> int:
        tests = [f for _, f in sorted(vars(type(self)).items()) if getattr(f, "is_test", False)]
        for f in tests:
            f(self)
        return len(tests)


start_all()
ran = 0
for m in machines:
    with Suite(m) as suite:
        ran += suite.run()
assert ran == 6, ran
assert isinstance(alpha, BaseMachine) and isinstance(beta, QemuMachine)
