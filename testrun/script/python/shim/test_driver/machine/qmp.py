"""QMP, QEMU's machine protocol, as scripts use it; the driver owns the socket."""

from __future__ import annotations

from test_driver.duration import seconds, timedelta
from test_driver.errors import MachineError

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from test_driver.duration import Duration
    from test_driver.machine.base import BaseMachine

TEN_SECONDS = timedelta(seconds=10)


class QMPAPIError(RuntimeError):
    """QEMU did not do as it was told."""


class QMPSession:
    """One machine's QMP. Events are kept from the machine's start on; each is
    given out once."""

    def __init__(self, machine: BaseMachine) -> None:
        self._machine = machine

    def send(self, cmd: str, args: dict[str, Any] = {}) -> dict[str, Any]:
        """Runs a command and returns QEMU's whole answer: {"return": …}."""
        try:
            result = self._machine._call("qmp_send", command=cmd, args=args)
        except MachineError as error:
            raise QMPAPIError(str(error)) from None
        return {"return": {} if result is None else result}

    def events(self, timeout: Duration = TEN_SECONDS) -> Iterator[dict[str, Any]]:
        """Yields the events that have come and not been given out yet."""
        while (event := self._next(0)) is not None:
            yield event

    def wait_for_event(self, timeout: Duration = TEN_SECONDS) -> dict[str, Any]:
        """Returns the next event."""
        event = self._next(seconds(timeout))
        if event is None:
            import queue

            raise queue.Empty
        return event

    def _next(self, timeout: float | None) -> dict[str, Any] | None:
        return self._machine._checked_call("qmp_next_event", timeout=timeout)
