"""Accounts of what ended a script, as messages for the driver."""

from __future__ import annotations

from test_driver.driver import InvalidScript
from test_driver.errors import MachineError, RequestedAssertionFailed

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from traceback import TracebackException
    from typing import Any


def outcome(error: BaseException | None) -> dict[str, Any]:
    """Returns the last message to the driver."""
    if error is None:
        return {"finished": {}}
    if isinstance(error, SystemExit):
        return outcome_of_exit(error)
    if isinstance(error, InvalidScript):
        return failed("syntax", str(error), invalid_script(error))

    import traceback

    text = str(error)
    account = traceback.TracebackException.from_exception(error)
    message = ": ".join(filter(None, [type(error).__name__, text]))
    if isinstance(error, RequestedAssertionFailed):
        lines = ["Traceback (most recent call last):"]
        for frame in account.stack:
            if frame.filename == "<string>":
                where = f"line {frame.lineno}, in {frame.name}"
                lines.append(f'  File "<string>", {where}')
                lines.append(f"    {frame.line}")
        lines += ["", *message.rstrip("\n").split("\n")]
        return failed("assertion", text, lines)
    hide_driver_frames(account)
    lines = "".join(account.format()).rstrip("\n").split("\n")
    if isinstance(error, MachineError):
        return failed("machine", text, lines)
    return failed("exception", message, lines)


def outcome_of_exit(error: SystemExit) -> dict[str, Any]:
    code = error.code
    if code is None:
        return {"finished": {}}
    if not isinstance(code, int):  # a text, which Python would print
        return failed("exit", str(code), str(code).split("\n"))
    code &= 0xFF
    if code == 0:
        return {"finished": {}}
    message = f"test script called sys.exit({code})"
    return failed("exit", message, [message], code)


def invalid_script(error: InvalidScript) -> list[str]:
    cause = error.cause
    if type(cause) is ValueError:  # compile's, up to Python 3.11.3
        return [f"SyntaxError: {cause} ({error.path})"]
    if not isinstance(cause, SyntaxError):
        return [str(error)]

    import traceback

    cause.filename = error.path
    lines = traceback.format_exception_only(type(cause), cause)
    return "".join(lines).rstrip("\n").split("\n")


def hide_driver_frames(account: TracebackException) -> None:
    """Leaves the frames of the script and of what it imports."""
    account.stack[:] = [
        frame
        for frame in account.stack
        if not frame.filename.startswith("<test_driver.")
    ]
    for other in (account.__cause__, account.__context__):
        if other is not None:
            hide_driver_frames(other)


def failed(
    kind: str, message: str, lines: list[str], exit_code: int = 1
) -> dict[str, Any]:
    return {
        "failed": {
            "kind": kind,
            "message": message.split("\n")[0],
            "lines": lines,
            "exit_code": exit_code,
        }
    }
