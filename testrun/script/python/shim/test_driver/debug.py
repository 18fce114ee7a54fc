"""Breakpoints: `debug` in scripts."""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from test_driver.logger import AbstractLogger


class DebugAbstract:
    def breakpoint(self, host: str = "127.0.0.1", port: int = 4444) -> None:
        """Stops the script for a debugger."""
        raise NotImplementedError

    def post_mortem(self, error: BaseException) -> None:
        """Stops after the script has failed."""


class DebugNop(DebugAbstract):
    """What there is without --debug-hook-attach."""

    def breakpoint(self, host: str = "127.0.0.1", port: int = 4444) -> None:
        """Does nothing: the test has no debug hook."""


class Debug(DebugAbstract):
    """Offers pdb on a TCP port, for tests that run where nobody sits."""

    def __init__(self, logger: AbstractLogger, attach_command: str) -> None:
        self.logger = logger
        self.attach = attach_command

    def breakpoint(self, host: str = "127.0.0.1", port: int = 4444) -> None:
        """Stops the script until a debugger that has connected to the port lets it
        go on."""
        import sys

        self._stop(host, port).set_trace(sys._getframe(1))

    def post_mortem(self, error: BaseException) -> None:
        try:
            debugger = self._stop("127.0.0.1", 4444)
        except OSError as problem:  # the error that counts is the script's
            self.logger.log_test_error(f"No breakpoint on TCP port 4444: {problem}")
            return
        debugger.reset()
        debugger.interaction(None, error.__traceback__)
        debugger.leave()

    def _stop(self, host: str, port: int):  # type: ignore[no-untyped-def]
        import random

        from test_driver.remote_pdb import Marker, RemotePdb, listen

        listener = listen(host, port)
        digits = str(random.randrange(1_000_000, 10_000_000))
        marker = Marker(digits)
        self.logger.log_test_error(
            f"Breakpoint reached, run 'sudo {self.attach} {digits}'"
        )
        return RemotePdb(listener, marker)
