"""Blocks that are undone."""

from __future__ import annotations

from test_driver.bridge import Bridge

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from types import TracebackType


class Rollback:
    """Undoes what the body of a `with` statement does to machines: to those of the
    given names, or to all that run when it begins."""

    def __init__(self, bridge: Bridge, machines: list[str] | None) -> None:
        self._bridge = bridge
        self._machines = machines

    def __enter__(self) -> None:
        self._id = self._bridge.call("rollback_begin", {"machines": self._machines})["id"]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bridge.call("rollback_end", {"id": self._id})
