"""Conditions that must hold while other things are waited for."""

from __future__ import annotations

import time

from test_driver.duration import FIFTEEN_MINUTES, as_seconds, seconds, timedelta

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from test_driver.duration import Duration
    from test_driver.logger import AbstractLogger

TWO_SECONDS = timedelta(seconds=2)


class PollingConditionError(Exception):
    """A polling condition did not hold."""


class PollingCondition:
    """A function that is called now and then and must not return False."""

    def __init__(
        self,
        condition: Callable[[], bool | None],
        logger: AbstractLogger,
        interval: Duration = TWO_SECONDS,
        description: str | None = None,
    ) -> None:
        self.condition = condition
        self.logger = logger
        self.interval = as_seconds(interval)
        self.description = str(
            description or condition.__doc__ or condition.__name__
        ).strip()
        self._last_called: float | None = None
        self._checking = False

    def check(self, force: bool = False) -> bool:
        """Says whether the condition holds. Unless forced, calls it only when
        the interval is over. A condition that runs machine commands is not
        checked again by them."""
        if not force and (self._checking or not self.overdue):
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

    @property
    def overdue(self) -> bool:
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


class Condition:
    """What the decorator polling_condition makes of a function.

    In a `with` statement, the condition is checked before each command and
    while something is waited for.
    """

    def __init__(
        self, condition: PollingCondition, active: list[PollingCondition]
    ) -> None:
        self.condition = condition
        self._active = active

    def __enter__(self) -> None:
        self._active.append(self.condition)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._active.remove(self.condition)

    def wait(
        self, timeout_seconds: Duration | None = None, timeout: Duration | None = None
    ) -> None:
        """Waits until the condition holds (default: up to 15 minutes)."""
        if timeout_seconds is not None:
            from test_driver import deprecation

            deprecation.renamed("wait(timeout_seconds=…)", "wait(timeout=…)")
            timeout = timeout_seconds if timeout is None else timeout
        seconds(timeout, "wait")
        log = self.condition.logger
        description = self.condition.description

        def attempt(last: bool) -> bool:
            if last:
                log.info(f"Last chance for {description}")
            holds = self.condition.check(force=True)
            if not holds and not last:
                log.info(f"({description} failure not fatal yet)")
            return holds

        with log.nested(f"waiting for {description}"):
            repeat(attempt, FIFTEEN_MINUTES if timeout is None else timeout)


def repeat(fn: Callable[[bool], object], timeout: Duration) -> None:
    """Calls fn(False) until it returns something true, and fn(True) when the
    time is over. The first calls follow each other closely."""
    limit = float("inf") if timeout == float("inf") else as_seconds(timeout)
    start = time.monotonic()
    pause = 0.02
    while time.monotonic() - start < limit:
        if fn(False):
            return
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)
    elapsed = time.monotonic() - start
    if not fn(True):
        from test_driver.errors import RequestedAssertionFailed

        raise RequestedAssertionFailed(
            f"action timed out after {elapsed:.2f} seconds (timeout={limit})"
        )
