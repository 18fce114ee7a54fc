"""Entry point: runs the script, or offers its symbols on the terminal."""

from __future__ import annotations

import sys

from test_driver.bridge import Bridge, flush_output
from test_driver.driver import Driver

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from typing import IO, Any


def main(reader: IO[bytes], writer: IO[bytes], init: dict[str, Any]) -> None:
    sys.argv = [init["script_path"]]
    if hasattr(sys.stdout, "reconfigure"):
        # Whole lines, in the order of the driver's own.
        sys.stdout.reconfigure(line_buffering=True)
    bridge = Bridge(reader, writer)
    driver = Driver(bridge, init)
    error: BaseException | None = None
    try:
        if init["mode"] == "interact":
            interact(driver)
        else:
            driver.run_script()
    except BaseException as e:  # SystemExit and KeyboardInterrupt too
        error = e
    if bridge.forked:
        return  # a forked copy of the script has come to its end
    flush_output()

    from test_driver.failure import outcome

    bridge.send(outcome(error))


def interact(driver: Driver) -> None:
    """Offers the script's symbols in Python's own console."""
    import code
    import signal

    signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # nobody could continue us
    symbols = driver.test_symbols()
    try:
        import readline
        import rlcompleter
    except ImportError:
        pass  # a Python without line editing
    else:
        readline.set_completer(rlcompleter.Completer(symbols).complete)
        readline.parse_and_bind("tab: complete")
    code.interact(
        banner="test_script() runs the test; Ctrl-D leaves.",
        local=symbols,
        exitmsg="",
    )
