"""pdb for one TCP connection."""

from __future__ import annotations

import os
import pdb
import shutil
import socket
import subprocess

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from typing import Any


class Marker:
    """The process by which nixpkgs' attach script finds where the test runs. The
    script starts the shell that $bashInteractive names."""

    def __init__(self, digits: str) -> None:
        env = {**os.environ, "bashInteractive": shutil.which("bash") or "/bin/sh"}
        self._process = subprocess.Popen(["sleep", digits], env=env)

    def remove(self) -> None:
        self._process.kill()
        self._process.wait()


def listen(host: str, port: int) -> socket.socket:
    return socket.create_server((host, port), reuse_port=False)


class RemotePdb(pdb.Pdb):
    """Waits for a connection and is there for it until it continues or quits; the
    script then goes on, also when the connection breaks."""

    def __init__(self, listener: socket.socket, marker: Marker) -> None:
        with listener:
            connection, _ = listener.accept()
        self._connection: socket.socket | None = connection
        self._marker = marker
        self._file = connection.makefile("rw", encoding="utf-8")
        super().__init__(
            stdin=self._file, stdout=self._file, nosigint=True, readrc=False
        )
        self.prompt = "(pdb) "

    def leave(self) -> None:
        """Ends the conversation; the second time does nothing."""
        if self._connection is None:
            return
        try:
            self._file.close()
        except OSError:
            pass  # the other side has left first
        self._connection.close()
        self._connection = None
        self._marker.remove()

    def do_continue(self, arg: str) -> Any:
        self.leave()
        return super().do_continue(arg)

    do_c = do_cont = do_continue
    do_q = do_quit = do_exit = do_EOF = do_continue
