"""Accounts of what ended a script, as messages for the driver."""

from __future__ import annotations

import threading

from test_driver.driver import InvalidScript
from test_driver.errors import MachineError, RequestedAssertionFailed
from test_driver.subtest import NoSubtestMatches, SubtestsFailed

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from traceback import TracebackException
    from typing import Any


def outcome(
    error: BaseException | None, failed_subtests: list[dict[str, Any]]
) -> dict[str, Any]:
    """Returns the last message to the driver.

    failed_subtests are those after which the script went on.
    """
    if error is None:
        return {"finished": {}}
    failure: dict[str, Any] | None
    if isinstance(error, SystemExit):
        failure = account_of_exit(error)
    else:
        failure = account(error)
    if failure is None:
        if not failed_subtests:
            return {"finished": {}}
        failure = account(SubtestsFailed(failed_subtests))  # sys.exit(0) does not help
    elif failed_subtests and not isinstance(error, SubtestsFailed):
        failure["lines"] += ["", f"Before that, {SubtestsFailed(failed_subtests)}"]
    return {"failed": failure}


def account(error: BaseException) -> dict[str, Any]:
    """Returns what the driver is told of an error."""
    if isinstance(error, InvalidScript):
        return failed("syntax", str(error), invalid_script(error), error.line)
    if isinstance(error, SubtestsFailed):
        return account_of_subtests(error)
    if isinstance(error, NoSubtestMatches):
        return failed("exception", str(error), [str(error)])

    text = str(error)
    message = ": ".join(filter(None, [type(error).__name__, text]))
    line = line_of(error)
    if isinstance(error, RequestedAssertionFailed):
        import traceback

        lines = ["Traceback (most recent call last):"]
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == "<string>":
                where = f"line {frame.lineno}, in {frame.name}"
                lines.append(f'  File "<string>", {where}')
                lines.append(f"    {frame.line}")
        lines.append("")
        for part in [message, *getattr(error, "__notes__", [])]:
            lines += str(part).rstrip("\n").split("\n")
        return failed("assertion", text, lines, line)
    lines = traceback_of(error)
    if isinstance(error, MachineError):
        return failed("machine", text, lines, line)
    return failed("exception", message, lines, line)


def account_of_exit(error: SystemExit) -> dict[str, Any] | None:
    """Returns what the driver is told of sys.exit(); None of one with success."""
    code = error.code
    line = line_of(error)
    if code is None:
        return None
    if not isinstance(code, int):  # a text, which Python would print
        return failed("exit", str(code), str(code).split("\n"), line)
    code &= 0xFF
    if code == 0:
        return None
    message = f"test script called sys.exit({code})"
    return failed("exit", message, [message], line, code)


def account_of_subtests(error: SubtestsFailed) -> dict[str, Any]:
    lines = [str(error)]
    for failure in error.failed:
        where = f"line {failure['line']}: " if failure["line"] else ""
        lines.append(f"  {failure['subtest']}: {where}{failure['message']}")
    kinds = {failure["kind"] for failure in error.failed}
    kind = "machine" if "machine" in kinds else "assertion"
    return failed(kind, str(error), lines, error.failed[0]["line"])


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


def traceback_of(error: BaseException) -> list[str]:
    """Returns Python's account of an error, without frames of this package."""
    import traceback

    trace = traceback.TracebackException.from_exception(error)
    hide_driver_frames(trace)
    return "".join(trace.format()).rstrip("\n").split("\n")


def hide_driver_frames(trace: TracebackException) -> None:
    """Leaves the frames of the script and of what it imports."""
    trace.stack[:] = [
        frame
        for frame in trace.stack
        if not frame.filename.startswith("<test_driver.")
        and frame.filename != threading.__file__  # which calls what a thread does
    ]
    for other in (trace.__cause__, trace.__context__):
        if other is not None:
            hide_driver_frames(other)


def line_of(error: BaseException) -> int:
    """Returns the innermost line of the script that an error went through."""
    line = 0
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == "<string>":
            line = traceback.tb_lineno or 0
        traceback = traceback.tb_next
    return line


def failed(
    kind: str, message: str, lines: list[str], line: int = 0, exit_code: int = 1
) -> dict[str, Any]:
    return {
        "kind": kind,
        "message": message.split("\n")[0],
        "lines": lines,
        "line": line,
        "exit_code": exit_code,
    }
