"""The connection to the driver process.

Messages are JSON objects, one per line, in both directions. A call carries an
id; its reply carries the same one, in any order. Every thread may call. The
driver may ask, while a call is under way, that its thread runs the callbacks
which it gave with the call.

One of the threads that wait for a reply, the leader, reads for all of them: to
have another thread read would cost more than all the rest of a call. Any call
may be interrupted by an exception (Ctrl-C, or a signal handler that raises), or
by a handler that makes a call itself, without harm to the stream: what has been
read is kept in one step with the reading, and each step of its processing may
be done twice. For the same reason, large messages are written by a thread in
which no signal handler runs.
"""

from __future__ import annotations

import _thread
import os
import select
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

# Bytes that are read at once, at most.
ONE_READ = (64 << 10,)

encoder = JSONEncoder(default=os.fspath, allow_nan=False, separators=(",", ":"))
decode = JSONDecoder().decode


class Reply:
    """Where the thread that made a call waits for messages about it."""

    def __init__(self) -> None:
        self.message: dict[str, Any] | None = None
        self.thread = threading.get_ident()
        self.waiting = False
        self.woken = threading.Lock()
        self.woken.acquire()

    def wake(self) -> None:
        try:
            self.woken.release()
        except RuntimeError:
            pass  # it is about to wake already


class Bridge:
    def __init__(self, fd: int, writer: IO[bytes], unread: bytes) -> None:
        self._fd = (fd,)
        self._writer = writer
        # A signal handler may come while its thread writes; its message is put
        # behind the whole one that is in the writer already.
        self._write_lock = threading.RLock()
        self._unread = [unread] if unread else []
        self._leader: dict[str, Reply] = {}  # has one entry, or none
        self._leaderships = 0  # so far
        self._ids = count(1)
        self._pending: dict[int, Reply] = {}
        self._variables: dict[Any, Any] | None = None
        self._directory = ""
        self.forked = False
        os.register_at_fork(after_in_child=self._after_fork)
        threading.Thread(target=self._watch, name="test_driver", daemon=True).start()

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
        reply = Reply()
        flush_output()  # what was printed so far comes before what the call logs
        try:
            self._pending[call_id] = reply
            self._send(data, with_environment=True)
            message = self._wait(reply)
            while "callback" in message:
                reply.message = None
                callback()  # type: ignore[misc]  # the driver asks only for given ones
                self._send(encode({"called_back": {"id": call_id}}))
                message = self._wait(reply)
        except BaseException:  # KeyboardInterrupt, or raised by a signal handler
            self._forget(call_id, reply)
            self._send(encode({"cancel": {"id": call_id}}))
            raise
        finally:
            self._forget(call_id, reply)
        if "error" in message:
            raise error_of(**message["error"])
        return message.get("result")

    def _forget(self, call_id: int, reply: Reply) -> None:
        self._pending.pop(call_id, None)
        self._resign(reply)

    def _wait(self, reply: Reply) -> dict[str, Any]:
        """Waits for a message about a call, and reads if nobody else does."""
        while reply.message is None:
            reply.waiting = True  # before the look at who leads: see _resign
            leader = self._leader.setdefault("it", reply)
            if leader is reply or leader.thread == reply.thread:
                self._lead(reply)
                self._resign(reply)
            else:
                reply.woken.acquire()
        reply.waiting = False
        return reply.message

    def _lead(self, reply: Reply) -> None:
        """Reads and hands out messages until one for this call is there."""
        self._leaderships += 1
        unread = self._unread
        while reply.message is None:
            leadership = self._leaderships
            data = unread[0] if len(unread) == 1 else b"".join(unread)
            line, newline, rest = data.partition(b"\n")
            if newline:
                self._deliver(decode(line.decode()))
                # Unless a signal handler has led in the meantime: Python runs none
                # between the comparison and the assignment.
                if leadership == self._leaderships:
                    unread[:] = [rest] if rest else []
                continue
            while True:
                # In one step: no exception comes between reading and keeping.
                unread.extend(map(os.read, self._fd, ONE_READ))
                if b"\n" in unread[-1]:
                    break
                if not unread[-1]:
                    kill_all()

    def _deliver(self, message: dict[str, Any]) -> None:
        reply = self._pending.get(message["id"])
        if reply is not None:  # it has not been interrupted
            reply.message = message
            reply.wake()

    def _resign(self, reply: Reply) -> None:
        """Has another waiting thread lead, if this call's does."""
        reply.waiting = False
        leader = self._leader.get("it")
        if leader is reply:
            self._leader.pop("it", None)
        elif leader is not None:
            return
        # A thread that begins to wait after this look finds no leader. Of a thread
        # whose signal handler has interrupted a call, only the handler's can lead.
        thread = None
        for other in list(self._pending.values()):
            if other.waiting and other.message is None:
                thread = thread or other.thread
                if other.thread == thread:
                    other.wake()

    def send(self, message: dict[str, Any]) -> None:
        """Sends a message that has no reply."""
        self._send(encode(message))

    def _send(self, data: bytes, with_environment: bool = False) -> None:
        if len(data) <= ONE_WRITE:
            self._write(data, with_environment)
            return
        errors: list[BaseException] = []
        written = threading.Lock()
        written.acquire()

        def write() -> None:
            try:
                self._write(data, with_environment)
            except BaseException as error:
                errors.append(error)
            finally:
                written.release()

        try:
            # threading.Thread cannot be interrupted in its start.
            _thread.start_new_thread(write, ())
        except RuntimeError:  # too late for threads: an exit handler calls
            write()
        written.acquire()
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

    def _watch(self) -> None:
        """Waits for the end of the driver."""
        poll = select.poll()
        poll.register(self._fd[0], 0)  # for nothing but the other side's end
        poll.poll()
        kill_all()

    def _after_fork(self) -> None:
        self.forked = True


def kill_all() -> None:
    """Ends the script, as the driver is gone, and with it the machines: nothing
    that the script has started may stay behind."""
    os.killpg(os.getpgrp(), signal.SIGKILL)


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


def error_of(kind: str, message: str, note: str = "") -> Exception:
    if note:
        error = error_of(kind, message)
        if not hasattr(error, "add_note"):  # before Python 3.11
            return error_of(kind, f"{message}\n{note}")
        error.add_note(note)
        return error
    if kind == "assertion":
        return RequestedAssertionFailed(message)
    if kind == "machine":
        return MachineError(message)
    if kind == "type":
        return TypeError(message)
    return RuntimeError(message)


def flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError, RuntimeError):
            pass  # the script's own print meets it too
