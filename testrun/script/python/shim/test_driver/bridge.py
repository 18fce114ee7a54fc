"""The connection to the driver process.

Messages are JSON objects, one per line, in both directions. A call carries an
id; its reply carries the same one, in any order. Every thread may call.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import sys
import threading

from test_driver.errors import MachineError, RequestedAssertionFailed

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from typing import IO, Any


def seconds(duration: Any) -> float | None:
    """Returns a number of seconds or a timedelta as seconds; None is no limit."""
    if duration is None:
        return None
    if hasattr(duration, "total_seconds"):
        duration = duration.total_seconds()
    duration = float(duration)
    return None if duration == math.inf else duration


class Reply:
    """Where the thread that made a call waits for its reply."""

    def __init__(self) -> None:
        self.message: dict[str, Any] = {}
        self.arrived = threading.Lock()
        self.arrived.acquire()


class Bridge:
    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        self._reader = reader
        self._writer = writer
        self._write_lock = threading.Lock()
        self._ids = itertools.count(1)
        self._pending: dict[int, Reply] = {}
        self._environment: tuple[dict[str, str], str] | None = None
        self.forked = False
        os.register_at_fork(after_in_child=self._after_fork)
        threading.Thread(target=self._receive, name="test_driver", daemon=True).start()

    def call(self, method: str, args: dict[str, Any], machine: str = "") -> Any:
        """Has the driver execute a method and returns its result.

        machine is empty for the driver's own methods.
        """
        if self.forked:
            raise RuntimeError(
                f"{method}: machines belong to the process that runs the script; "
                "use threads instead of forked processes"
            )
        call_id = next(self._ids)
        request = encode(
            {"id": call_id, "method": method, "machine": machine, "args": args}
        )
        reply = self._pending[call_id] = Reply()
        flush_output()  # what was printed so far comes before what the call logs
        try:
            with self._write_lock:
                self._write(self._changed_environment() + request)
            reply.arrived.acquire()
        except BaseException:  # KeyboardInterrupt, or raised by a signal handler
            if self._pending.pop(call_id, None) is not None:
                self.send({"cancel": {"id": call_id}})
            raise
        if "error" in reply.message:
            raise error_of(**reply.message["error"])
        return reply.message.get("result")

    def send(self, message: dict[str, Any]) -> None:
        """Sends a message that has no reply."""
        with self._write_lock:
            self._write(encode(message))

    def _write(self, data: bytes) -> None:
        self._writer.write(data)
        self._writer.flush()

    def _changed_environment(self) -> bytes:
        """Machines are spawned with the environment of the script."""
        try:
            cwd = os.getcwd()
        except FileNotFoundError:  # it was removed
            cwd = "/"
        environment = (os.environ.copy(), cwd)
        if environment == self._environment:
            return b""
        self._environment = environment
        env = [f"{key}={value}" for key, value in environment[0].items()]
        return encode({"environment": {"env": env, "cwd": cwd}})

    def _receive(self) -> None:
        try:
            for line in self._reader:
                message = json.loads(line)
                reply = self._pending.pop(message["id"], None)
                if reply is not None:
                    reply.message = message
                    reply.arrived.release()
        finally:
            # The driver is gone, and with it the machines: nothing that this
            # script has started may stay behind.
            os.killpg(os.getpgrp(), signal.SIGKILL)

    def _after_fork(self) -> None:
        self.forked = True


def encode(message: dict[str, Any]) -> bytes:
    text = json.dumps(message, default=os.fspath, allow_nan=False)
    return text.encode("ascii") + b"\n"


def error_of(kind: str, message: str) -> Exception:
    if kind == "assertion":
        return RequestedAssertionFailed(message)
    if kind == "machine":
        return MachineError(message)
    return RuntimeError(message)


def flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            pass  # the script's own print meets it too
