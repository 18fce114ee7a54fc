"""Attributes of machines which the driver keeps."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from test_driver.machine.base import BaseMachine
    from test_driver.machine.qemu import QemuMachine


class PathAttribute:
    """A directory of a machine; the driver learns of assignments."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, machine: BaseMachine | None, owner: type | None = None) -> Any:
        if machine is None:
            return self
        return path(machine._info[self.name])

    def __set__(self, machine: BaseMachine, value: str | os.PathLike[str]) -> None:
        text = os.path.abspath(value)
        machine._call("set_attribute", name=self.name, value=text)
        machine._info[self.name] = text


class StateAttribute:
    """A flag that the driver keeps. Scripts assign to it as well, for example
    connected = False after a kexec."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, machine: BaseMachine | None, owner: type | None = None) -> Any:
        if machine is None:
            return self
        return bool(machine._call("get_attribute", name=self.name))

    def __set__(self, machine: BaseMachine, value: bool) -> None:
        machine._call("set_attribute", name=self.name, value=bool(value))


def path(text: str) -> Path:
    from pathlib import Path  # takes milliseconds

    return Path(text)


class Process:
    """A machine's process, as much of a subprocess.Popen as scripts use."""

    args: list[str] = []
    stderr = None

    def __init__(self, machine: QemuMachine, pid: int) -> None:
        self._machine = machine
        self.pid = pid
        self.returncode: int | None = None
        self.stdin = ConsoleInput(machine)
        self.stdout = ConsoleOutput(machine)

    def poll(self) -> int | None:
        """Returns the exit status; None while the process runs."""
        if self.returncode is None and self._machine.pid != self.pid:
            self.returncode = self._machine._call("get_attribute", name="returncode")
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the process to exit and returns its status."""
        import subprocess
        import time

        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(0.05)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(15)

    def kill(self) -> None:
        self.send_signal(9)


class ConsoleInput:
    """Standard input of a machine's process: its serial console."""

    def __init__(self, machine: QemuMachine) -> None:
        self._machine = machine

    def write(self, data: bytes) -> int:
        self._machine._call("send_console", chars=data.decode(errors="replace"))
        return len(data)

    def flush(self) -> None:
        """There is nothing to flush: write sends at once."""

    def close(self) -> None:
        """The console stays open: it is the driver's as well."""


class ConsoleOutput:
    """What a machine's process has written so far: its serial console."""

    def __init__(self, machine: QemuMachine) -> None:
        self._machine = machine

    def read(self) -> bytes:
        return self._machine._call("get_console_log").encode()

    def __iter__(self) -> Any:
        return iter(self.read().splitlines(keepends=True))
