"""The connection to the driver process.

Messages are JSON objects, one per line, in both directions. A call carries an
id; its reply carries the same one, in any order. Every thread may call. The
driver may ask, while a call is under way, that its thread runs the callbacks
which it gave with the call.

Any call may be interrupted by an exception (Ctrl-C, or a signal handler that
raises) without harm to the stream: a thread that no signal handler runs in does
the reading and, for large messages, the writing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from itertools import count
from json.decoder import JSONDecoder
from json.encoder import JSONEncoder

from test_driver.errors import MachineError, RequestedAssertionFailed

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Any

# Messages up to this size go into the writer's buffer and out of it in one
# piece, whatever interrupts the thread.
ONE_WRITE = 60 << 10

encoder = JSONEncoder(default=os.fspath, allow_nan=False, separators=(",", ":"))
decode = JSONDecoder().decode


class Reply:
    """Where the thread that made a call waits for messages about it."""

    def __init__(self) -> None:
        self.message: dict[str, Any] = {}
        self.arrived = threading.Lock()
        self.arrived.acquire()


class Bridge:
    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        self._reader = reader
        self._writer = writer
        self._write_lock = threading.Lock()
        self._ids = count(1)
        self._pending: dict[int, Reply] = {}
        self._variables: dict[Any, Any] | None = None
        self._directory = ""
        self.forked = False
        os.register_at_fork(after_in_child=self._after_fork)
        threading.Thread(target=self._receive, name="test_driver", daemon=True).start()

    def call(
        self,
        method: str,
        args: dict[str, Any],
        machine: str = "",
        callback: Callable[[], None] | None = None,
    ) -> Any:
        """Has the driver execute a method and returns its result.

        machine is empty for the driver's own methods. callback is run in this
        thread whenever the driver asks for it; what it raises ends the call.
        """
        if self.forked:
            raise RuntimeError(
                f"{method}: machines belong to the process that runs the script; "
                "use threads instead of forked processes"
            )
        call_id = next(self._ids)
        request = {"id": call_id, "method": method, "machine": machine, "args": args}
        if callback is not None:
            request["callbacks"] = True
        data = encode(request)
        reply = self._pending[call_id] = Reply()
        flush_output()  # what was printed so far comes before what the call logs
        try:
            self._send(data, with_environment=True)
            reply.arrived.acquire()
            while "callback" in reply.message:
                callback()  # type: ignore[misc]  # the driver asks only for given ones
                self._send(encode({"called_back": {"id": call_id}}))
                reply.arrived.acquire()
        except BaseException:  # KeyboardInterrupt, or raised by a signal handler
            if self._pending.pop(call_id, None) is not None:
                self._send(encode({"cancel": {"id": call_id}}))
            raise
        if "error" in reply.message:
            raise error_of(**reply.message["error"])
        return reply.message.get("result")

    def send(self, message: dict[str, Any]) -> None:
        """Sends a message that has no reply."""
        self._send(encode(message))

    def _send(self, data: bytes, with_environment: bool = False) -> None:
        if len(data) <= ONE_WRITE:
            self._write(data, with_environment)
            return
        errors: list[BaseException] = []

        def write() -> None:
            try:
                self._write(data, with_environment)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]

    def _write(self, data: bytes, with_environment: bool) -> None:
        with self._write_lock:
            if not with_environment:
                self._writer.write(data)
                self._writer.flush()
                return
            try:
                directory = os.getcwd()
            except FileNotFoundError:  # it was removed
                directory = "/"
            # os.environ is a wrapper, which takes far longer to compare.
            variables = getattr(os.environ, "_data", os.environ)
            if variables == self._variables and directory == self._directory:
                self._writer.write(data)
            else:
                self._writer.write(environment(directory) + data)
                self._variables, self._directory = dict(variables), directory
            self._writer.flush()

    def _receive(self) -> None:
        try:
            for line in self._reader:
                message = decode(line.decode())
                if "callback" in message:
                    reply = self._pending.get(message["id"])
                else:
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


connections: list[Bridge] = []  # the one of this process, once main has made it


def current() -> Bridge:
    """Returns the connection, for objects that scripts make themselves."""
    if not connections:
        raise RuntimeError("test_driver works only in scripts that nixos-test-run runs")
    return connections[-1]


def environment(directory: str) -> bytes:
    """Returns the message that says how machines are to be spawned from now on."""
    env = [f"{key}={value}" for key, value in os.environ.items()]
    return encode({"environment": {"env": env, "cwd": directory}})


def encode(message: dict[str, Any]) -> bytes:
    return encoder.encode(message).encode("ascii") + b"\n"


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
