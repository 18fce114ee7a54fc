"""Entry point: runs the script, or offers its symbols on the terminal."""

from __future__ import annotations

import sys
import threading

from test_driver.bridge import Bridge, connections, flush_output
from test_driver.driver import Driver

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from typing import IO, Any


def main(fd: int, writer: IO[bytes], unread: bytes, init: dict[str, Any]) -> None:
    sys.argv = [init["script_path"]]
    if hasattr(sys.stdout, "reconfigure"):
        # Whole lines, in the order of the driver's own.
        sys.stdout.reconfigure(line_buffering=True)
    threading.excepthook = show_thread
    bridge = Bridge(fd, writer, unread)
    connections.append(bridge)
    driver = None
    error: BaseException | None = None
    try:
        driver = Driver.of_test(bridge, init)
        if init["mode"] == "interact":
            from test_driver.interactive import interact

            interact(driver)
        else:
            driver.run_script()
            driver.subtests.finish()
    except BaseException as e:  # SystemExit and KeyboardInterrupt too
        error = e
    if bridge.forked:
        return  # a forked copy of the script has come to its end
    flush_output()

    from test_driver.failure import outcome

    bridge.send(outcome(error, driver.subtests.failed if driver else []))


def show_thread(ended: threading.ExceptHookArgs) -> None:
    """Shows what has ended a thread of the script, which goes on."""
    if ended.exc_value is None or issubclass(ended.exc_type, SystemExit):
        return

    from test_driver.failure import traceback_of

    name = ended.thread.name if ended.thread else "unknown"
    lines = traceback_of(ended.exc_value)
    print(f"Exception in thread {name}:", *lines, sep="\n", file=sys.stderr)
