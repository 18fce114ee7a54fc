"""Subtests: failing ones may let the others go on, and only some may be run."""

from __future__ import annotations

import sys

from test_driver.logger import Block, reason
from test_driver.rollback import Rollback

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    import re
    from types import FrameType, TracebackType
    from typing import Any

    from test_driver.logger import AbstractLogger


class NoSubtestMatches(Exception):
    """The regular expression for subtests matches none, or is not one."""


class SubtestsFailed(Exception):
    """The script went on after subtests had failed, and has come to its end."""

    def __init__(self, failed: list[dict[str, Any]]) -> None:
        names = ", ".join(failure["subtest"] for failure in failed)
        plural = "" if len(failed) == 1 else "s"
        super().__init__(f"{len(failed)} subtest{plural} failed: {names}")
        self.failed = failed


class Subtests:
    """What has become of the subtests of one script."""

    def __init__(
        self, logger: AbstractLogger, keep_going: bool = False, only: str = ""
    ) -> None:
        self._logger = logger
        self._keep_going = keep_going
        self._only: re.Pattern[str] | None = None
        if only:
            import re

            try:
                self._only = re.compile(only)
            except re.error as error:
                raise NoSubtestMatches(f"--subtest {only!r}: {error}") from None
        self.entered = 0  # of those that match: nested ones run as well
        self._matched = False
        self._skipped: list[str] = []
        self.failed: list[dict[str, Any]] = []

    def subtest(self, name: str, isolate: bool = False) -> Subtest:
        """Groups a part of the test, which reports list by its name."""
        return Subtest(self, self._logger, str(name), isolate)

    def check(self, script: str) -> None:
        """Raises what is known before any machine boots."""
        if self._only is None:
            return
        names = literal_names(script)
        if names is not None and not any(map(self._only.search, names)):
            raise self._no_match(names)

    def finish(self) -> None:
        """Raises what the end of the script leaves to be said."""
        if self.failed:
            raise SubtestsFailed(self.failed)
        if self._only is not None and not self._matched:
            raise self._no_match(self._skipped)

    def _no_match(self, names: list[str]) -> NoSubtestMatches:
        assert self._only is not None
        those = ", ".join(repr(name) for name in dict.fromkeys(names)) or "none"
        return NoSubtestMatches(
            f"no subtest matches --subtest {self._only.pattern!r}: the script has {those}"
        )

    def wants(self, name: str) -> bool:
        if self._only is None or self.entered:
            return True
        matches = self._only.search(name) is not None
        self._matched |= matches
        if not matches:
            self._skipped.append(name)
        return matches

    def goes_on(self, name: str, error: BaseException | None) -> bool:
        """Reports a failed subtest, and says whether the script goes on."""
        if not isinstance(error, Exception):
            return False
        log = self._logger
        text = str(error)
        if self._keep_going:
            text = text.split("\n")[0]  # the account below has all of it
        log.log_test_error(f'Test "{name}" failed with error: "{text}"')
        if not self._keep_going:
            return False

        from test_driver.failure import account

        failure = {"subtest": name, **account(error)}
        self.failed.append(failure)
        log._bridge.call("subtest_failed", failure)
        return True


# With these a script may have subtests that its text does not show.
WAYS_AROUND = {"driver", "exec", "eval", "globals", "locals", "vars"}


def literal_names(script: str) -> list[str] | None:
    """Returns the names of all subtests of a script, or None where its text does
    not tell them."""
    import ast

    names = []
    mentions = 0
    for node in ast.walk(ast.parse(script)):
        match node:
            case ast.Call(
                func=ast.Name(id="subtest"), args=[ast.Constant(value=str(name))]
            ):
                names.append(name)
            case ast.Name(id="subtest"):
                mentions += 1
            case ast.Name(id=name) if name in WAYS_AROUND:
                return None
            case ast.Import(names=modules) if any(
                module.name.startswith("test_driver") for module in modules
            ):
                return None
            case ast.ImportFrom(module=str(module)) if module.startswith("test_driver"):
                return None
    return names if mentions == len(names) else None


class SkipBody(BaseException):
    """Ends the body of a `with` statement before it has begun."""


class Subtest(Block):
    """One `with subtest(name):`."""

    def __init__(
        self, subtests: Subtests, logger: AbstractLogger, name: str, isolate: bool
    ) -> None:
        super().__init__(logger._bridge, f"subtest: {name}", {}, subtest=name)
        self._subtests = subtests
        self._logger = logger
        self._name = name
        self._skip: Skip | None = None
        self._rollback = Rollback(logger._bridge, None) if isolate else None

    def __enter__(self) -> None:
        self._wanted = self._subtests.wants(self._name)
        frame = sys._getframe(1)
        # An ExitStack enters for its caller, whose `with` statement cannot be found
        # from here: its body runs.
        if self._wanted or frame.f_globals.get("__name__") == "contextlib":
            super().__enter__()
            if self._rollback is not None:
                try:
                    self._rollback.__enter__()
                except BaseException as error:
                    super().__exit__(type(error), error, None)
                    raise
            self._subtests.entered += self._wanted
            return
        self._logger.info(f"(skipped: subtest: {self._name})")
        self._skip = Skip(frame)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if self._skip is not None:
            self._skip.undo()
            self._skip = None
            return kind is SkipBody
        self._subtests.entered -= self._wanted
        goes_on = self._subtests.goes_on(self._name, error)
        try:
            if self._rollback is not None:
                self._rollback.__exit__(kind, error, traceback)
        except BaseException as other:
            error = error or other
            raise
        finally:
            super().__exit__(kind, error, traceback)
        return goes_on


class Skip:
    """Has a frame raise SkipBody at its next instruction, which is where the
    body of its `with` statement begins. Python calls a frame's trace function
    before that, and lets it raise."""

    def __init__(self, frame: FrameType) -> None:
        self._frame = frame
        self._before = (sys.gettrace(), frame.f_trace, frame.f_trace_opcodes)
        frame.f_trace_opcodes = True  # the body may be on the same line
        frame.f_trace = self._raise
        sys.settrace(lambda *_: None)

    def _raise(self, *_: Any) -> None:
        self.undo()
        raise SkipBody

    def undo(self) -> None:
        trace, self._frame.f_trace, self._frame.f_trace_opcodes = self._before
        sys.settrace(trace)
