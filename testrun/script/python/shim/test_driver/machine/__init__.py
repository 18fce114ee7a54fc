"""Machines, as scripts call them, and the retry loop."""

from __future__ import annotations

from test_driver.duration import FIFTEEN_MINUTES, seconds
from test_driver.machine.base import BaseMachine, CommandResult, make_command
from test_driver.machine.nspawn import NspawnMachine
from test_driver.machine.qemu import QemuMachine, QemuStartCommand
from test_driver.polling_condition import repeat

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from test_driver.duration import Duration

__all__ = [
    "BaseMachine",
    "CommandResult",
    "Machine",
    "NixStartScript",
    "NspawnMachine",
    "QemuMachine",
    "QemuStartCommand",
    "StartCommand",
    "make_command",
    "retry",
]

# Names up to nixpkgs 25.11.
Machine = QemuMachine
StartCommand = NixStartScript = QemuStartCommand


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
    seconds(timeout, "retry")
    repeat(fn, FIFTEEN_MINUTES if timeout is None else timeout)


def __getattr__(name: str) -> Any:
    if name == "QMPSession":
        from test_driver.machine.qmp import QMPSession

        return QMPSession
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
