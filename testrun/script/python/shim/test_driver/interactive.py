"""The prompt of --interactive, and what else talks to the user."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from typing import Any

    from test_driver.driver import Driver
    from test_driver.machine import BaseMachine, QemuMachine

HISTORY = "./.nixos-test-history"
BANNER = "test_script() runs the test; Ctrl-D leaves."


def interact(driver: Driver) -> None:
    """Offers the script's symbols at the best prompt that there is."""
    import signal

    signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # nobody could continue us
    symbols = driver.test_symbols()
    if sys.stdin.isatty():
        # In nixpkgs' order.
        for prompt in (ptpython_with_ipython, ptpython, ipython):
            try:
                offer = prompt(symbols)
            except ImportError:
                continue
            print(BANNER)
            offer()
            return
    plain(symbols)


def ptpython_with_ipython(symbols: dict[str, Any]) -> Any:
    from ptpython.ipython import embed

    return lambda: embed(user_ns=symbols, history_filename=HISTORY)


def ptpython(symbols: dict[str, Any]) -> Any:
    from ptpython.repl import embed

    return lambda: embed(symbols, {}, history_filename=HISTORY)


def ipython(symbols: dict[str, Any]) -> Any:
    from IPython import start_ipython

    return lambda: start_ipython(
        ["--no-banner", "--no-confirm-exit"], user_ns=symbols
    )


def plain(symbols: dict[str, Any]) -> None:
    """Offers the symbols in Python's own console."""
    import code

    history = None
    try:
        import readline
        import rlcompleter
    except ImportError:
        pass  # a Python without line editing
    else:
        readline.set_completer(rlcompleter.Completer(symbols).complete)
        readline.parse_and_bind("tab: complete")
        if sys.stdin.isatty():
            history = readline
    if history is not None:
        try:
            history.read_history_file(HISTORY)
        except OSError:
            pass  # there is none yet
    try:
        code.interact(banner=BANNER, local=symbols, exitmsg="")
    finally:
        if history is not None:
            try:
                history.write_history_file(HISTORY)
            except OSError:
                pass  # a directory that cannot be written keeps no history


def shell(machine: BaseMachine) -> None:
    """Runs commands that the user types in the guest, until Ctrl-D or Ctrl-C."""
    machine.log("Terminal is ready; each line is a command of its own:")
    try:
        while True:
            status, output = machine.execute(input("$ "))
            print(output, end="" if output.endswith("\n") else "\n" if output else "")
            if status != 0:
                print(f"(exit code {status})")
    except (EOFError, KeyboardInterrupt):
        print()


def console(machine: QemuMachine) -> None:
    """Sends lines that the user types to the serial console, until Ctrl-D or
    Ctrl-C."""
    machine.log("Terminal is ready (there is no prompt):")
    try:
        for line in sys.stdin:
            machine.send_console(line)
    except KeyboardInterrupt:
        pass
    machine.log("Closing connection to the console")
