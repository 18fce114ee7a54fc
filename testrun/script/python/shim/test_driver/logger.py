"""The script's log: messages and nested blocks.

There is one log, the driver's: where it goes is decided by the driver's flags.
All of nixpkgs' classes of loggers write to it.
"""

from __future__ import annotations

import sys
from enum import IntEnum
from functools import wraps

from test_driver.bridge import Bridge, current

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, NoReturn

# Attributes are only read. The one called "machine" says whose message it is;
# the others end up in the XML log.
NO_ATTRIBUTES: dict[str, Any] = {}


class LogLevel(IntEnum):
    DEBUG = 1
    INFO = 2
    WARNING = 3
    ERROR = 4


class Block:
    """A group of messages: for one `with` statement, or as a decorator."""

    def __init__(
        self, bridge: Bridge, text: str, attributes: dict[str, Any], subtest: str = ""
    ) -> None:
        self._bridge = bridge
        attrs = {key: str(value) for key, value in attributes.items()}
        machine = attrs.pop("machine", "")
        self._open = {
            "machine": machine,
            "text": str(text),
            "attrs": attrs,
            "subtest": subtest,
        }

    def __enter__(self) -> None:
        self._id = self._bridge.call("block_open", self._open)["id"]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._bridge.call("block_close", {"id": self._id, "failure": reason(error)})
        return None

    def __call__(self, function: Any) -> Any:
        @wraps(function)
        def grouped(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return grouped


def reason(error: BaseException | None) -> str:
    """Returns why a block ended early; empty when it did not fail."""
    if error is None:
        return ""
    if isinstance(error, SystemExit):
        return f"sys.exit({error.code!r})" if error.code else ""
    return str(error) or type(error).__name__


class AbstractLogger:
    """What every logger can do."""

    def __init__(self, *_: Any, **__: Any) -> None:
        # nixpkgs' classes take files and other loggers.
        self._bridge = current()

    def _emit(self, level: str, message: Any, attributes: dict[str, Any]) -> None:
        machine = str(attributes.get("machine", ""))
        self._bridge.call(
            "log", {"level": level, "message": str(message), "machine": machine}
        )

    def log(self, message: str, attributes: dict[str, Any] = NO_ATTRIBUTES) -> None:
        """Logs a message that no log level hides."""
        self._emit("", message, attributes)

    def debug(self, message: str, attributes: dict[str, Any] = NO_ATTRIBUTES) -> None:
        self._emit("debug", message, attributes)

    def info(self, message: str, attributes: dict[str, Any] = NO_ATTRIBUTES) -> None:
        self._emit("info", message, attributes)

    def warning(self, message: str, attributes: dict[str, Any] = NO_ATTRIBUTES) -> None:
        self._emit("warning", message, attributes)

    def error(
        self, message: str, attributes: dict[str, Any] = NO_ATTRIBUTES
    ) -> NoReturn:
        """Logs a message and ends the script with exit code 1."""
        self._emit("error", message, attributes)
        sys.exit(1)

    def log_test_error(
        self, message: str, attributes: dict[str, Any] = NO_ATTRIBUTES
    ) -> None:
        """Logs a message as one about a failure, and goes on."""
        self._emit("test_error", message, attributes)

    def log_serial(self, message: str, machine: str) -> None:
        """Logs a line as one of a machine's console."""
        self._bridge.call("log_serial", {"message": str(message), "machine": machine})

    def print_serial_logs(self, enable: bool) -> None:
        """Shows or hides serial consoles on the terminal."""
        self._bridge.call("serial_stdout", {"on": bool(enable)})

    def set_log_level(self, level: LogLevel) -> None:
        """Warns that the level is the driver's to set."""
        self.warning(
            f"set_log_level({LogLevel(level).name}): the log has the level that "
            "nixos-test-run was given with --log-level"
        )

    def nested(
        self, message: str, attributes: dict[str, Any] = NO_ATTRIBUTES
    ) -> Block:
        """Groups the messages of a `with` statement."""
        return Block(self._bridge, message, attributes)

    def subtest(self, name: str, attributes: dict[str, Any] = NO_ATTRIBUTES) -> Block:
        """Groups a part of the test, which reports list by its name."""
        return Block(self._bridge, f"subtest: {name}", attributes, subtest=str(name))


class CompositeLogger(AbstractLogger):
    """The driver's log."""


class TerminalLogger(AbstractLogger):
    """The driver's log."""


class XMLLogger(AbstractLogger):
    """The driver's log."""


class JunitXMLLogger(AbstractLogger):
    """The driver's log."""


def __getattr__(name: str) -> Any:
    if name == "rootlog":  # up to nixpkgs 24.05
        return CompositeLogger()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
