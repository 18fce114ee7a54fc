"""Virtual machines."""

from __future__ import annotations

from test_driver import deprecation
from test_driver.duration import FIFTEEN_MINUTES, seconds, timedelta
from test_driver.machine.base import BaseMachine, pattern_of
from test_driver.rollback import Rollback

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from test_driver.duration import Duration
    from test_driver.efi import EfiVariable
    from test_driver.logger import AbstractLogger
    from test_driver.machine.attributes import Process
    from test_driver.machine.qmp import QMPSession

TEN_MINUTES = timedelta(minutes=10)


class QemuStartCommand:
    """The start script of a machine."""

    def __init__(self, script: str) -> None:
        self._cmd = str(script)

    def __str__(self) -> str:
        return self._cmd

    @property
    def machine_name(self) -> str:
        """The name in run-NAME-vm; otherwise "machine"."""
        name = self._cmd.rpartition("/")[2].removeprefix("run-").removesuffix("-vm")
        return name if self._cmd.endswith(f"run-{name}-vm") else "machine"


class QemuMachine(BaseMachine):
    """A machine in QEMU."""

    def __init__(
        self,
        out_dir: Any = None,
        tmp_dir: Any = None,
        start_command: Any = "",
        logger: AbstractLogger | None = None,
        name: str | None = None,
        keep_machine_state: bool = False,
        callbacks: list[Callable[[], None]] | None = None,
        *,
        keep_vm_state: bool = False,
        **_: Any,
    ) -> None:
        """Makes a machine that is not one of the test's; the caller starts it."""
        super().__init__(
            out_dir=out_dir,
            name=name,
            logger=logger,
            callbacks=callbacks,
            keep_machine_state=keep_machine_state or keep_vm_state,
            start_command=start_command,
        )

    @property
    def start_command(self) -> QemuStartCommand:
        return QemuStartCommand(self._info.get("start_command", ""))

    @property
    def pid(self) -> int | None:
        """The number of the machine's process; None when it does not run."""
        return self._call("get_attribute", name="pid") or None

    @property
    def process(self) -> Process | None:
        """The machine's process, or the last one; None before the first start."""
        process: Process | None = self.__dict__.get("_process")
        pid = self._call("get_attribute", name="last_pid")
        if pid is not None and (process is None or process.pid != pid):
            from test_driver.machine.attributes import Process

            process = self.__dict__["_process"] = Process(self, pid)
        return process

    @property
    def qmp_client(self) -> QMPSession | None:
        """The machine's QMP; None when it does not run."""
        if not self.booted:
            return None
        from test_driver.machine.qmp import QMPSession

        return QMPSession(self)

    @property
    def full_console_log(self) -> list[str]:
        return self.get_console_log().split("\n")

    # Life cycle

    def start(self, allow_reboot: bool = False) -> None:
        """Starts the machine without waiting for it to boot.

        Without allow_reboot, QEMU exits when the guest reboots.
        """
        self._call("start", allow_reboot=allow_reboot)

    def crash(self) -> None:
        """Ends the machine as a power failure would."""
        self._checked_call("crash")

    def reboot(self) -> None:
        """Reboots the guest, which must have been started with allow_reboot."""
        self._checked_call("reboot")

    def switch_root(self) -> None:
        """Has a guest that is in its initial RAM disk go on to its own system."""
        self._checked_call("switch_root")

    # Monitor

    def send_monitor_command(self, command: str) -> str:
        """Runs a command of QEMU's human monitor."""
        return self._checked_call("send_monitor_command", command=command)

    def wait_for_monitor_prompt(self) -> str:
        """Returns at once: a machine that has been started has a prompt, and
        send_monitor_command waits for the next one itself."""
        return ""

    def wait_for_qmp_event(
        self,
        event_filter: Callable[[dict[str, Any]], bool],
        timeout: Duration = TEN_MINUTES,
    ) -> dict[str, Any]:
        """Returns the next event of which event_filter says True."""
        import time

        client = self.qmp_client
        if client is None:
            raise RuntimeError("QMP API is not ready yet, is the VM ready?")
        limit = seconds(timeout, "wait_for_qmp_event")
        deadline = float("inf") if limit is None else time.monotonic() + limit
        while True:
            left = None if limit is None else max(0.0, deadline - time.monotonic())
            event = client._next(left)
            if event is not None and event_filter(event):
                return event
            if event is None and time.monotonic() >= deadline:
                raise TimeoutError(f"no such QMP event within {limit} seconds")

    # Consoles

    def send_console(self, chars: str) -> None:
        """Types on the serial console."""
        self._checked_call("send_console", chars=chars)

    def get_tty_text(self, tty: str) -> str:
        """Returns what a virtual terminal shows."""
        return self._checked_call("get_tty_text", tty=str(tty))

    def wait_until_tty_matches(
        self, tty: str, regexp: str, timeout: Duration = FIFTEEN_MINUTES
    ) -> None:
        """Waits until what a virtual terminal shows matches."""
        self._wait(
            "wait_until_tty_matches", timeout, tty=str(tty), regexp=pattern_of(regexp)
        )

    def dump_tty_contents(self, tty: str) -> None:
        """Writes what a virtual terminal shows to the guest's journal."""
        self._checked_call("dump_tty_contents", tty=str(tty))

    def get_console_log(self) -> str:
        """Returns what the serial console has shown so far."""
        return self._call("get_console_log")

    def wait_for_console_text(
        self, regex: str, timeout: Duration | None = None
    ) -> None:
        """Waits until the serial console shows something that matches."""
        self._wait("wait_for_console_text", timeout, regex=pattern_of(regex))

    def shell_interact(self, address: str | None = None) -> None:
        """Runs commands that the user types, until Ctrl-D."""
        deprecation.warn(
            "shell_interact() is deprecated. Use the SSH backdoor instead."
        )
        if address is not None:
            raise ValueError("shell_interact() reads from the terminal, and no address")
        from test_driver.interactive import shell

        shell(self)

    def console_interact(self) -> None:
        """Sends what the user types to the serial console, until Ctrl-D."""
        from test_driver.interactive import console

        console(self)

    # Snapshots

    def save(self, name: str) -> None:
        """Keeps what the running machine is under a name, until it ends."""
        self._checked_call("save", name=name)

    def restore(self, name: str) -> None:
        """Makes the machine what it was at save() of that name."""
        self._checked_call("restore", name=name)

    def rollback(self) -> Rollback:
        """Undoes what the body of a `with` statement does to the machine."""
        return Rollback(self._bridge, [self._info["name"]])

    # Network

    def forward_port(self, host_port: int = 8080, guest_port: int = 80) -> None:
        """Makes a TCP port of the guest one of the host."""
        self._checked_call("forward_port", host_port=host_port, guest_port=guest_port)

    def block(self) -> None:
        """Unplugs the cables of all VLANs."""
        self._checked_call("block")

    def unblock(self) -> None:
        """Plugs them in again."""
        self._checked_call("unblock")

    # EFI variables, of a machine that is off

    def read_efi_vars(self) -> dict[str, dict[str, EfiVariable]] | None:
        """Returns the variables by vendor and name; None where there is no store."""
        from test_driver.efi import by_vendor

        return by_vendor(self._call("read_efi_vars"))

    def write_efi_vars(self, variables: list[EfiVariable]) -> None:
        """Adds variables, or replaces those of the same vendor and name."""
        self._call("write_efi_vars", variables=[v.to_wire() for v in variables])

    def create_efi_vars(self) -> None:
        """Makes an empty store."""
        self._call("create_efi_vars")

    def dump_efi_vars(self) -> None:
        """Prints the variables."""
        text = self._call("dump_efi_vars")
        if text:
            print(text)
