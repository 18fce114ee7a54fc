"""The script's log: messages, nested blocks and subtests."""

from __future__ import annotations

import sys

from test_driver.bridge import Bridge

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, NoReturn

# Attributes are only read. The one called "machine" says whose message it is;
# the others end up in the XML log.
NO_ATTRIBUTES: dict[str, Any] = {}


class Block:
    """A group of messages, for one `with` statement."""

    def __init__(
        self, bridge: Bridge, text: str, attributes: dict[str, Any], subtest: str = ""
    ) -> None:
        self._bridge = bridge
        self._subtest = subtest
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
    ) -> None:
        if self._subtest and isinstance(error, Exception):
            message = f'Test "{self._subtest}" failed with error: "{error}"'
            self._bridge.call(
                "log", {"level": "error", "message": message, "machine": ""}
            )
        self._bridge.call("block_close", {"id": self._id, "failure": reason(error)})


def reason(error: BaseException | None) -> str:
    """Returns why a block ended early; empty when it did not fail."""
    if error is None:
        return ""
    if isinstance(error, SystemExit):
        return f"sys.exit({error.code!r})" if error.code else ""
    return str(error) or type(error).__name__


class Logger:
    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def _emit(self, level: str, message: str, attributes: dict[str, Any]) -> None:
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

    def nested(
        self, message: str, attributes: dict[str, Any] = NO_ATTRIBUTES
    ) -> Block:
        return Block(self._bridge, message, attributes)

    def subtest(self, name: str, attributes: dict[str, Any] = NO_ATTRIBUTES) -> Block:
        """Groups a part of the test, which reports list by its name."""
        return Block(self._bridge, f"subtest: {name}", attributes, subtest=str(name))
