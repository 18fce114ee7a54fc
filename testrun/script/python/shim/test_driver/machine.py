"""Machines, as scripts call them, and the retry loop.

Durations are seconds (int, float) or datetime.timedelta. Parameters that were
renamed in the course of nixpkgs' releases are accepted under each name.
"""

from __future__ import annotations

import os
import time

from test_driver.bridge import Bridge, seconds
from test_driver.errors import RequestedAssertionFailed
from test_driver.logger import NO_ATTRIBUTES, Block, Logger

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta
    from pathlib import Path
    from typing import Any

    Duration = timedelta | int | float

FIFTEEN_MINUTES = 900.0


def retry(
    fn: Callable[[bool], Any],
    timeout_seconds: Duration | None = None,
    timeout: Duration | None = None,
) -> None:
    """Calls fn(False) until it returns something true.

    After the timeout (default 15 minutes) comes one last fn(True); when that is
    false too, the assertion fails.
    """
    if timeout is None:
        timeout = timeout_seconds
    limit = FIFTEEN_MINUTES if timeout is None else seconds(timeout)
    start = time.monotonic()
    pause = 0.02
    while limit is None or time.monotonic() - start < limit:
        if fn(False):
            return
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)
    elapsed = time.monotonic() - start
    if not fn(True):
        raise RequestedAssertionFailed(
            f"action timed out after {elapsed:.2f} seconds (timeout={limit})"
        )


class PathAttribute:
    """A directory of a machine; the driver learns of assignments."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, machine: BaseMachine, owner: type | None = None) -> Path:
        from pathlib import Path

        return Path(machine._info[self.name])

    def __set__(self, machine: BaseMachine, value: str | os.PathLike[str]) -> None:
        path = os.path.abspath(value)
        machine._call("set_attribute", name=self.name, value=path)
        machine._info[self.name] = path


class StateAttribute:
    """A flag that the driver keeps. Scripts assign to it as well, for example
    connected = False after a kexec."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, machine: BaseMachine, owner: type | None = None) -> bool:
        return bool(machine._call("get_attribute", name=self.name))

    def __set__(self, machine: BaseMachine, value: bool) -> None:
        machine._call("set_attribute", name=self.name, value=bool(value))


class BaseMachine:
    """What every kind of machine can do."""

    state_dir = PathAttribute()
    shared_dir = PathAttribute()
    out_dir = PathAttribute()
    booted = StateAttribute()
    connected = StateAttribute()

    def __init__(
        self,
        bridge: Bridge,
        logger: Logger,
        info: dict[str, str],
        callbacks: Iterable[Callable[[], None]] = (),
    ) -> None:
        self.name = info["name"]
        self.logger = logger
        self.callbacks = list(callbacks)
        self._bridge = bridge
        self._info = info

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def _call(self, method: str, /, **args: Any) -> Any:
        return self._bridge.call(method, args, self._info["name"])

    def _checked_call(self, method: str, /, **args: Any) -> Any:
        """Calls a method that talks to the guest: polling conditions come first."""
        self.run_callbacks()
        return self._call(method, **args)

    def run_callbacks(self) -> None:
        for callback in self.callbacks:
            callback()

    # Log

    def log(self, msg: str) -> None:
        self.logger.log(msg, {"machine": self.name})

    def nested(self, msg: str, attrs: dict[str, Any] = NO_ATTRIBUTES) -> Block:
        return self.logger.nested(msg, {"machine": self.name, **attrs})

    # Life cycle

    def start(self) -> None:
        """Starts the machine without waiting for it to boot."""
        self._call("start", allow_reboot=False)

    def is_up(self) -> bool:
        return bool(self._call("is_up"))

    def shutdown(self) -> None:
        """Shuts the machine down and waits until it is off."""
        self._call("shutdown")

    def wait_for_shutdown(self) -> None:
        """Waits until the machine is off, without asking it to."""
        self._call("wait_for_shutdown")

    def connect(self) -> None:
        """Starts the machine when it is off and waits for its shell."""
        self._call("connect")

    def release(self) -> None:
        """Ends the machine at once and frees what it holds."""
        self._call("release")

    # Commands

    def execute(
        self,
        command: str,
        check_return: bool = True,
        check_output: bool = True,
        timeout: Duration | None = FIFTEEN_MINUTES,
    ) -> tuple[int, str]:
        """Runs a command in the guest; returns its status and standard output."""
        status, output = self._checked_call(
            "execute",
            command=command,
            check_return=check_return,
            check_output=check_output,
            timeout=seconds(timeout),
        )
        return status, output

    def succeed(self, *commands: str, timeout: Duration | None = None) -> str:
        """Runs commands that must exit with 0; returns their joined output."""
        return self._checked_call(
            "succeed", commands=commands, timeout=seconds(timeout)
        )

    def fail(self, *commands: str, timeout: Duration | None = None) -> str:
        """Runs commands that must not exit with 0; returns their joined output."""
        return self._checked_call("fail", commands=commands, timeout=seconds(timeout))

    def wait_until_succeeds(
        self, command: str, timeout: Duration | None = FIFTEEN_MINUTES
    ) -> str:
        """Repeats a command until it exits with 0; returns its output."""
        return self._checked_call(
            "wait_until_succeeds", command=command, timeout=seconds(timeout)
        )

    def wait_until_fails(
        self, command: str, timeout: Duration | None = FIFTEEN_MINUTES
    ) -> str:
        """Repeats a command until it does not exit with 0; returns its output."""
        return self._checked_call(
            "wait_until_fails", command=command, timeout=seconds(timeout)
        )

    def sleep(
        self, secs: Duration | None = None, duration: Duration | None = None
    ) -> None:
        """Sleeps in the guest, in the guest's time."""
        duration = secs if duration is None else duration
        if duration is None:
            raise TypeError("sleep() needs a duration")
        self._checked_call("sleep", duration=seconds(duration))

    # Units

    def systemctl(self, q: str, user: str | None = None) -> tuple[int, str]:
        """Runs systemctl with the arguments q, for a user's units when given."""
        status, output = self._checked_call("systemctl", q=q, user=user)
        return status, output

    def wait_for_unit(
        self,
        unit: str,
        user: str | None = None,
        timeout: Duration | None = FIFTEEN_MINUTES,
    ) -> None:
        """Waits until a unit is active; fails at once when it cannot become so."""
        self._checked_call(
            "wait_for_unit", unit=unit, user=user, timeout=seconds(timeout)
        )

    def get_unit_info(self, unit: str, user: str | None = None) -> dict[str, str]:
        """Returns what `systemctl show` prints of a unit."""
        return self._checked_call("get_unit_info", unit=unit, user=user)

    def get_unit_property(
        self, unit: str, property: str, user: str | None = None
    ) -> str:
        return self._checked_call(
            "get_unit_property", unit=unit, property=property, user=user
        )

    def require_unit_state(self, unit: str, require_state: str = "active") -> None:
        self._checked_call(
            "require_unit_state", unit=unit, require_state=require_state
        )

    def start_job(self, job: str, user: str | None = None) -> tuple[int, str]:
        status, output = self._checked_call("start_job", job=job, user=user)
        return status, output

    def stop_job(self, job: str, user: str | None = None) -> tuple[int, str]:
        status, output = self._checked_call("stop_job", job=job, user=user)
        return status, output

    # Files and ports

    def wait_for_file(
        self, filename: str, timeout: Duration | None = FIFTEEN_MINUTES
    ) -> None:
        self._checked_call("wait_for_file", filename=filename, timeout=seconds(timeout))

    def wait_for_open_port(
        self,
        port: int,
        addr: str = "localhost",
        timeout: Duration | None = FIFTEEN_MINUTES,
    ) -> None:
        """Waits until something listens on a TCP port, seen from the guest."""
        self._checked_call(
            "wait_for_open_port", port=int(port), addr=addr, timeout=seconds(timeout)
        )

    def wait_for_closed_port(
        self,
        port: int,
        addr: str = "localhost",
        timeout: Duration | None = FIFTEEN_MINUTES,
    ) -> None:
        """Waits until nothing listens on a TCP port, seen from the guest."""
        self._checked_call(
            "wait_for_closed_port", port=int(port), addr=addr, timeout=seconds(timeout)
        )

    def copy_from_host(self, source: str, target: str) -> None:
        """Copies a file or directory of the host into the guest."""
        self._checked_call("copy_from_host", source=source, target=target)

    def copy_from_machine(self, source: str, target_dir: str = "") -> None:
        """Copies a file or directory of the guest below the output directory."""
        self._checked_call("copy_from_machine", source=source, target_dir=target_dir)

    copy_from_vm = copy_from_machine  # its name up to nixpkgs 25.11

    def screenshot(self, filename: str) -> None:
        """Saves the screen as PNG; a bare name goes to the output directory."""
        self._checked_call("screenshot", filename=filename)


class QemuMachine(BaseMachine):
    """A machine in QEMU."""

    def start(self, allow_reboot: bool = False) -> None:
        """Starts the machine without waiting for it to boot.

        Without allow_reboot, QEMU exits when the guest reboots.
        """
        self._call("start", allow_reboot=allow_reboot)

    def crash(self) -> None:
        """Ends the machine as a power failure would."""
        self._checked_call("crash")

    def reboot(self) -> None:
        """Reboots the guest, which must have been started with allow_reboot."""
        self._checked_call("reboot")

    def send_monitor_command(self, command: str) -> str:
        """Runs a command of QEMU's human monitor."""
        return self._checked_call("send_monitor_command", command=command)

    def block(self) -> None:
        """Unplugs the cables of all VLANs."""
        self._checked_call("block")

    def unblock(self) -> None:
        """Plugs them in again."""
        self._checked_call("unblock")

    def get_console_log(self) -> str:
        """Returns what the serial console has shown so far."""
        return self._call("get_console_log")


Machine = QemuMachine  # its name up to nixpkgs 25.11
