"""Conditions that must hold while other things are waited for."""

from __future__ import annotations

import time

from test_driver.logger import Logger

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Callable


class PollingConditionError(Exception):
    """A polling condition did not hold."""


class PollingCondition:
    """A function that is called now and then and must not return False."""

    def __init__(
        self,
        condition: Callable[[], bool | None],
        logger: Logger,
        interval: float,
        description: str | None = None,
    ) -> None:
        self.condition = condition
        self.logger = logger
        self.interval = interval
        self.description = str(
            description or condition.__doc__ or condition.__name__
        ).strip()
        self._last_called: float | None = None
        self._checking = False

    def check(self, force: bool = False) -> bool:
        """Says whether the condition holds. Unless forced, calls it only when
        the interval is over. A condition that runs machine commands is not
        checked again by them."""
        if not force and (self._checking or not self._due()):
            return True
        self._checking = True
        try:
            with self.logger.nested(f"Checking polling condition '{self.description}'"):
                self.logger.info(self._last_call())
                try:
                    result = self.condition()
                    holds = result is None or bool(result)
                except Exception:
                    holds = False
                self.logger.info(self._status(holds))
                return holds
        finally:
            self._checking = False
            self._last_called = time.monotonic()

    def maybe_raise(self) -> None:
        if not self.check():
            raise PollingConditionError(self._status(False))

    def _due(self) -> bool:
        return (
            self._last_called is None
            or time.monotonic() - self._last_called > self.interval
        )

    def _last_call(self) -> str:
        if self._last_called is None:
            return "(not called yet)"
        return f"Time since last: {time.monotonic() - self._last_called:.2f}s"

    def _status(self, holds: bool) -> str:
        word = "succeeded" if holds else "failed"
        return f"Polling condition {word}: {self.description}"
