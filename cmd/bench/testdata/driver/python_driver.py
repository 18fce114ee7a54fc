#!/usr/bin/env python3
"""The Python driver's algorithm, for comparison.

It does what the driver of nixpkgs (autumn 2026) does where time goes, in our own
words: a command is a line that runs timeout, bash and base64 in the guest, and a
second one that asks for the status; waits sleep for a second between attempts;
copies go through the shared directory, or in base64 within commands that are no
longer than an argument can be; console text without a time-out is polled without
a pause. What it leaves out (callbacks, log levels, colours, reports) makes it
faster than the original, never slower.
"""

import argparse
import base64
import json
import os
import queue
import re
import select
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from contextlib import contextmanager
from pathlib import Path

# The original imports these, too; those that are not installed cost nothing here.
MISSING = []
for module in "colorama", "junit_xml", "pydantic", "ptpython.ipython", "remote_pdb":
    try:
        __import__(module)
    except ImportError:
        MISSING.append(module)


# Its base64 is shorter than the longest argument, 128 KiB.
PIECE = 90 << 10


class RequestedAssertionFailed(AssertionError):
    pass


def retry(attempt, timeout=900):
    begin = time.monotonic()
    while time.monotonic() - begin < timeout:
        if attempt(False):
            return
        time.sleep(1)
    if not attempt(True):
        raise RequestedAssertionFailed(f"action timed out after {time.monotonic() - begin:.2f} seconds")


class Machine:
    def __init__(self, name, start_script, tmp, out_dir):
        self.name = name
        self.start_script = start_script
        self.out_dir = out_dir
        self.state_dir = tmp / f"vm-state-{name}"
        self.shared_dir = tmp / "shared-xchg"
        for directory in self.state_dir, self.shared_dir:
            directory.mkdir(mode=0o700, exist_ok=True)
        self.process = None
        self.connected = False
        self.lines = queue.Queue()

    @contextmanager
    def nested(self, message):
        print(f"{self.name}: {message}", file=sys.stderr)
        begin = time.monotonic()
        yield
        print(f"{self.name}: (finished: {message}, in {time.monotonic() - begin:.2f} seconds)", file=sys.stderr)

    def start(self):
        if self.process:
            return
        listeners = []
        for name in "monitor", "shell":
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(self.state_dir / name))
            listener.listen(1)
            listeners.append(listener)
        state = self.state_dir
        # KVM is asked for by start scripts; it is not of use on every machine.
        force = os.environ.get("BENCH_QEMU_OPTIONS", "")
        self.process = subprocess.Popen(
            f"{self.start_script} -qmp unix:{state}/qmp,server=on,wait=off -monitor unix:{state}/monitor "
            f"-chardev socket,id=shell,path={state}/shell -device virtio-serial -device virtconsole,chardev=shell "
            f"-device virtio-rng-pci -serial stdio -no-reboot -nographic {force}",
            shell=True,
            cwd=state,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(state), "SHARED_DIR": str(self.shared_dir), "USE_TMPDIR": "1"},
        )
        threading.Thread(target=self._read_console, daemon=True).start()
        self.monitor, self.shell = (self._accept(listener) for listener in listeners)
        while b"(qemu) " not in (answer := self.monitor.recv(1024)):
            if not answer:
                raise RuntimeError("QEMU has ended")
        self.qmp = socket.socket(socket.AF_UNIX)
        self.qmp.connect(str(state / "qmp"))
        self.qmp.recv(4096)
        self.qmp.sendall(b'{"execute": "qmp_capabilities"}\n')

    def _accept(self, listener):
        while not select.select([listener], [], [], 1)[0]:
            if self.process.poll() is not None:
                raise RuntimeError("QEMU has ended")
        return listener.accept()[0]

    def _read_console(self):
        for raw in self.process.stdout:
            line = raw.decode(errors="ignore").replace("\r", "").rstrip()
            self.lines.put(line)
            print(f"{self.name} # {line}", file=sys.stderr)

    def connect(self):
        if self.connected:
            return
        self.start()
        greeting = b""
        while b"Spawning backdoor root shell..." not in greeting:
            greeting += self.shell.recv(1024)
        self.connected = True

    def execute(self, command, timeout=900):
        self.connect()
        command = f"set -euo pipefail; {command}"
        limit = f"timeout {timeout} " if timeout is not None else ""
        self.shell.sendall(f"{limit}bash -c {shlex.quote(command)} | (base64 -w 0; echo)\n".encode())
        output = base64.b64decode(self._answer())
        self.shell.sendall(b"echo ${PIPESTATUS[0]}\n")
        return int(self._answer()), output.decode(errors="replace")

    def _answer(self):
        chunks = [self.shell.recv(4096)]
        while chunks[-1][-1:] != b"\n":
            chunks.append(self.shell.recv(4096))
        return b"".join(chunks)

    def succeed(self, command, timeout=None):
        with self.nested(f"must succeed: {command}"):
            status, output = self.execute(command, timeout)
            if status:
                raise RequestedAssertionFailed(f"command `{command}` failed (exit code {status})")
        return output

    def wait_until_succeeds(self, command):
        with self.nested(f"waiting for success: {command}"):
            retry(lambda _: self.execute(command)[0] == 0)

    def wait_for_file(self, name):
        with self.nested(f"waiting for file '{name}'"):
            retry(lambda _: self.execute(f"test -e {name}")[0] == 0)

    def wait_for_open_port(self, port):
        with self.nested(f"waiting for TCP port {port} on localhost"):
            retry(lambda _: self.execute(f"nc -z localhost {port}")[0] == 0)

    def wait_for_unit(self, unit):
        def active(_):
            _, output = self.execute(f'systemctl --no-pager show "{unit}" --property="ActiveState"')
            state = output.strip().removeprefix("ActiveState=")
            if state == "failed":
                raise RequestedAssertionFailed(f'unit "{unit}" reached state "{state}"')
            if state == "inactive" and "No jobs" in self.execute("systemctl list-jobs --full 2>&1")[1]:
                raise RequestedAssertionFailed(f'unit "{unit}" is inactive and there are no pending jobs')
            return state == "active"

        with self.nested(f"waiting for unit {unit}"):
            retry(active)

    def wait_for_console_text(self, regexp):
        text = ""
        while not re.search(regexp, text):
            try:
                text += self.lines.get(block=False)
            except queue.Empty:
                pass

    def copy_from_host(self, source, target):
        source = Path(source)
        with tempfile.TemporaryDirectory(dir=self.shared_dir) as host:
            guest = Path("/tmp/shared", Path(host).name, source.name)
            self.succeed(f"mkdir -p {guest.parent}")
            shutil.copy(source, host)
            self.succeed(f"mkdir -p {Path(target).parent}")
            self.succeed(f"cp -r {guest} {target}")

    def copy_from_machine(self, source, target_dir=""):
        source = Path(source)
        with tempfile.TemporaryDirectory(dir=self.shared_dir) as host:
            guest = Path("/tmp/shared", Path(host).name)
            self.succeed(f"mkdir -p {guest}")
            self.succeed(f"cp -r {source} {guest}/{source.name}")
            target = Path(self.out_dir, target_dir)
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(host, source.name), target / source.name)

    def copy_from_host_via_shell(self, source, target):
        self.succeed(f"mkdir -p $(dirname {target}) && : > {target}")
        with open(source, "rb") as file:
            while piece := file.read(PIECE):
                text = base64.b64encode(piece).decode()
                status, _ = self.execute(f"echo -n {text} | base64 -d >> {target}", None)
                assert status == 0

    def copy_from_machine_via_shell(self, source, size):
        """In pieces, too: the original has nothing for this. Output is text to
        it, so what is not needs base64 of its own; and of longer output QEMU drops
        a part when we do not get to read for a moment."""
        with open(Path(self.out_dir, Path(source).name), "wb") as file:
            for i in range(-(-size // PIECE)):
                command = f"dd if={source} bs={PIECE} skip={i} count=1 2>/dev/null | base64 -w 0"
                status, text = self.execute(command, None)
                assert status == 0
                file.write(base64.b64decode(text))

    def release(self):
        if self.process:
            self.process.terminate()
            self.process.wait()


def start_switch(number, tmp):
    directory = tmp / f"vde{number}.ctl"
    switch = subprocess.Popen(
        ["vde_switch", "--sock", directory, "--dirmode", "0700", "--hub"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    switch.stdin.write("showinfo\n")
    switch.stdin.flush()
    while "1000 Success" not in switch.stdout.readline():
        pass
    os.environ[f"QEMU_VDE_SOCKET_{number}"] = str(directory)
    return switch


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("-o", "--output_directory", type=Path, default=Path("."))
    args = parser.parse_args()
    config = json.loads(args.config.read_text())
    if MISSING:
        print("not installed, and so not imported: " + ", ".join(MISSING), file=sys.stderr)
    tmp = Path(os.environ["XDG_RUNTIME_DIR"])
    switches = [start_switch(number, tmp) for number in config["vlans"]]
    machines = [Machine(name, vm["start_script"], tmp, args.output_directory) for name, vm in config["vms"].items()]
    symbols = {m.name: m for m in machines}
    symbols |= {"machine": machines[0], "machines": machines, "retry": retry, "t": unittest.TestCase(), "os": os}
    try:
        exec(compile(Path(config["test_script"]).read_text(), "<string>", "exec"), symbols)
    finally:
        for m in machines:
            m.release()
        for switch in switches:
            switch.terminate()
            switch.wait()


main()
