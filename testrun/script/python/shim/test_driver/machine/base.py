"""What every kind of machine can do."""

from __future__ import annotations

from test_driver import deprecation
from test_driver.bridge import current
from test_driver.duration import FIFTEEN_MINUTES, seconds, timedelta
from test_driver.logger import NO_ATTRIBUTES
from test_driver.machine.attributes import PathAttribute, StateAttribute, path

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import Any

    from test_driver.bridge import Bridge
    from test_driver.duration import Duration
    from test_driver.logger import AbstractLogger, Block

TEN_MILLISECONDS = timedelta(milliseconds=10)


class CommandResult:
    """A command that has ended."""

    def __init__(self, status: int, stdout: str, stderr: str) -> None:
        self.status = status
        self.stdout = stdout
        self.stderr = stderr

    def __repr__(self) -> str:
        return (
            f"CommandResult(status={self.status!r}, "
            f"stdout={self.stdout!r}, stderr={self.stderr!r})"
        )


def make_command(args: Iterable[object]) -> str:
    """Returns a shell command of words that need no quoting by the caller."""
    import shlex

    return shlex.join(map(str, args))


def pattern_of(regex: Any) -> str:
    """Returns a regular expression as text, be it compiled or not."""
    text = getattr(regex, "pattern", regex)
    flags = getattr(regex, "flags", 0)
    letters = "".join(x for x, bit in zip("imsx", (2, 8, 16, 64)) if flags & bit)
    return f"(?{letters}){text}" if letters else text


class BaseMachine:
    """What every kind of machine can do."""

    name: str
    state_dir = PathAttribute()
    shared_dir = PathAttribute()
    out_dir = PathAttribute()
    booted = StateAttribute()
    connected = StateAttribute()

    def __init__(
        self,
        out_dir: Any = None,
        name: str | None = None,
        logger: AbstractLogger | None = None,
        tmp_dir: Any = None,
        callbacks: list[Callable[[], None]] | None = None,
        keep_machine_state: bool = False,
        *,
        start_command: Any = "",
    ) -> None:
        """Makes a machine that is not one of the test's; the caller starts it."""
        bridge = current()
        info = bridge.call(
            "create_machine",
            {
                "start_command": str(start_command),
                "name": name,
                "keep_machine_state": keep_machine_state,
            },
        )
        self._attach(
            bridge, logger, {**info, "start_command": str(start_command)}, callbacks or []
        )
        self.keep_machine_state = keep_machine_state
        if out_dir is not None and path(out_dir) != self.out_dir:
            self.out_dir = out_dir

    @classmethod
    def known(
        cls,
        bridge: Bridge,
        logger: AbstractLogger,
        info: dict[str, str],
        callbacks: list[Callable[[], None]],
    ) -> Any:
        """Returns a machine that the driver has made already."""
        machine = cls.__new__(cls)
        machine._attach(bridge, logger, info, callbacks)
        return machine

    def _attach(
        self,
        bridge: Bridge,
        logger: AbstractLogger | None,
        info: dict[str, str],
        callbacks: list[Callable[[], None]],
    ) -> None:
        if logger is None:
            from test_driver.logger import CompositeLogger

            logger = CompositeLogger()
        self._bridge = bridge
        self._info = info
        self.name = info["name"]
        self.logger = logger
        self.callbacks = callbacks
        self.keep_machine_state = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} '{self.name}'>"

    @property
    def tmp_dir(self) -> Path:
        return self.state_dir.parent

    def _call(self, method: str, /, **args: Any) -> Any:
        return self._bridge.call(method, args, self._info["name"])

    def _checked_call(self, method: str, /, **args: Any) -> Any:
        """Calls a method that talks to the guest: the callbacks come first, and
        again while it waits."""
        callback = None
        if self.callbacks:
            self.run_callbacks()
            callback = self.run_callbacks if self._callbacks_matter() else None
        return self._bridge.call(method, args, self._info["name"], callback)

    def _callbacks_matter(self) -> bool:
        """Says whether the callbacks do anything at the moment: the one that every
        machine has does nothing while there are no polling conditions."""
        for callback in self.callbacks:
            driver = getattr(callback, "__self__", None)
            if getattr(driver, "polling_conditions", True):
                return True
        return False

    def run_callbacks(self) -> None:
        for callback in self.callbacks:
            callback()

    # Log

    def log(self, msg: str) -> None:
        self.logger.log(msg, {"machine": self.name})

    def log_serial(self, msg: str) -> None:
        self.logger.log_serial(msg, self.name)

    def nested(self, msg: str, attrs: dict[str, Any] = NO_ATTRIBUTES) -> Block:
        return self.logger.nested(msg, {"machine": self.name, **attrs})

    # Life cycle

    def start(self) -> None:
        """Starts the machine without waiting for it to boot."""
        self._call("start", allow_reboot=False)

    def is_up(self) -> bool:
        return bool(self._call("is_up"))

    def shutdown(self) -> None:
        """Shuts the machine down and waits until it is off."""
        self._call("shutdown")

    def wait_for_shutdown(self) -> None:
        """Waits until the machine is off, without asking it to."""
        self._call("wait_for_shutdown")

    def connect(self) -> None:
        """Starts the machine when it is off and waits for its shell."""
        self._call("connect")

    def release(self) -> None:
        """Ends the machine at once and frees what it holds."""
        self._call("release")

    def cleanup_statedir(self) -> None:
        """Deletes the directory with the machine's disks."""
        import shutil

        shutil.rmtree(self.state_dir)
        self.logger.log(f"deleting machine state directory {self.state_dir}")
        self.logger.log(
            "if you want to keep the machine state, pass --keep-machine-state"
        )

    # Commands

    def execute(
        self,
        command: str,
        check_return: bool = True,
        check_output: bool = True,
        timeout: Duration | None = FIFTEEN_MINUTES,
    ) -> tuple[int, str]:
        """Runs a command in the guest; returns its status and standard output."""
        status, output = self._checked_call(
            "execute",
            command=command,
            check_return=check_return,
            check_output=check_output,
            timeout=seconds(timeout, "execute"),
        )
        return status, output

    def succeed(self, *commands: str, timeout: Duration | None = None) -> str:
        """Runs commands that must exit with 0; returns their joined output."""
        return self._checked_call(
            "succeed", commands=commands, timeout=seconds(timeout, "succeed")
        )

    def fail(self, *commands: str, timeout: Duration | None = None) -> str:
        """Runs commands that must not exit with 0; returns their joined output."""
        return self._checked_call(
            "fail", commands=commands, timeout=seconds(timeout, "fail")
        )

    def run(self, command: str, timeout: Duration | None = None) -> CommandResult:
        """Runs a command; returns its status, standard output and error."""
        result = self._checked_call("run", command=command, timeout=seconds(timeout))
        return CommandResult(**result)

    def parallel(self, *commands: str, timeout: Duration | None = None) -> list[str]:
        """Runs commands at once, all of which must exit with 0; returns their
        outputs."""
        results = self._checked_call(
            "parallel", commands=commands, timeout=seconds(timeout)
        )
        bad = [
            f"`{command}` (exit code {result['status']})"
            for command, result in zip(commands, results)
            if result["status"] != 0
        ]
        if bad:
            from test_driver.errors import RequestedAssertionFailed

            plural = "" if len(bad) == 1 else "s"
            raise RequestedAssertionFailed(f"command{plural} failed: {', '.join(bad)}")
        return [result["stdout"] for result in results]

    def wait_until_succeeds(
        self,
        command: str,
        timeout: Duration = FIFTEEN_MINUTES,
        *,
        attempt_timeout: Duration | None = None,
    ) -> str:
        """Repeats a command until it exits with 0; returns its output.

        Each attempt may take all of timeout, unless attempt_timeout is given.
        """
        return self._wait(
            "wait_until_succeeds", timeout, attempt_timeout, command=command
        )

    def wait_until_fails(
        self,
        command: str,
        timeout: Duration = FIFTEEN_MINUTES,
        *,
        attempt_timeout: Duration | None = None,
    ) -> str:
        """Repeats a command until it does not exit with 0; returns its output."""
        return self._wait("wait_until_fails", timeout, attempt_timeout, command=command)

    def _wait(
        self,
        method: str,
        timeout: Duration | None,
        attempt_timeout: Duration | None = None,
        **args: Any,
    ) -> Any:
        if attempt_timeout is not None:
            args["attempt_timeout"] = seconds(attempt_timeout)
        return self._checked_call(method, **args, timeout=seconds(timeout, method))

    def sleep(
        self, secs: Duration | None = None, duration: Duration | None = None
    ) -> None:
        """Sleeps in the guest, in the guest's time."""
        duration = secs if duration is None else duration
        if duration is None:
            raise TypeError("sleep() needs a duration")
        self._checked_call("sleep", duration=seconds(duration, "sleep"))

    # Units

    def systemctl(self, q: str, user: str | None = None) -> tuple[int, str]:
        """Runs systemctl with the arguments q, for a user's units when given."""
        status, output = self._checked_call("systemctl", q=q, user=user)
        return status, output

    def wait_for_unit(
        self,
        unit: str,
        user: str | None = None,
        timeout: Duration = FIFTEEN_MINUTES,
    ) -> None:
        """Waits until a unit is active; fails at once when it cannot become so."""
        self._wait("wait_for_unit", timeout, unit=unit, user=user)

    def wait_for_job(self, jobname: str) -> None:
        """The old name of wait_for_unit."""
        deprecation.renamed("wait_for_job()", "wait_for_unit()")
        self.wait_for_unit(jobname)

    def get_unit_info(self, unit: str, user: str | None = None) -> dict[str, str]:
        """Returns what `systemctl show` prints of a unit."""
        return self._checked_call("get_unit_info", unit=unit, user=user)

    def get_unit_property(
        self, unit: str, property: str, user: str | None = None
    ) -> str:
        return self._checked_call(
            "get_unit_property", unit=unit, property=property, user=user
        )

    def require_unit_state(self, unit: str, require_state: str = "active") -> None:
        self._checked_call(
            "require_unit_state", unit=unit, require_state=require_state
        )

    def start_job(
        self, job: str = "", user: str | None = None, *, jobname: str = ""
    ) -> tuple[int, str]:
        """Starts a unit; returns systemctl's status and output."""
        status, output = self._checked_call("start_job", job=job or jobname, user=user)
        return status, output

    def stop_job(
        self, job: str = "", user: str | None = None, *, jobname: str = ""
    ) -> tuple[int, str]:
        """Stops a unit; returns systemctl's status and output."""
        status, output = self._checked_call("stop_job", job=job or jobname, user=user)
        return status, output

    # Files and ports

    def wait_for_file(
        self,
        filename: str,
        timeout: Duration = FIFTEEN_MINUTES,
        *,
        attempt_timeout: Duration | None = None,
    ) -> None:
        self._wait("wait_for_file", timeout, attempt_timeout, filename=filename)

    def wait_for_open_port(
        self,
        port: int,
        addr: str = "localhost",
        timeout: Duration = FIFTEEN_MINUTES,
        *,
        attempt_timeout: Duration | None = None,
    ) -> None:
        """Waits until something listens on a TCP port, seen from the guest."""
        self._wait(
            "wait_for_open_port", timeout, attempt_timeout, port=int(port), addr=addr
        )

    def wait_for_closed_port(
        self,
        port: int,
        addr: str = "localhost",
        timeout: Duration = FIFTEEN_MINUTES,
        *,
        attempt_timeout: Duration | None = None,
    ) -> None:
        """Waits until nothing listens on a TCP port, seen from the guest."""
        self._wait(
            "wait_for_closed_port", timeout, attempt_timeout, port=int(port), addr=addr
        )

    def wait_for_open_unix_socket(
        self,
        addr: str,
        is_datagram: bool = False,
        timeout: Duration = FIFTEEN_MINUTES,
        *,
        attempt_timeout: Duration | None = None,
    ) -> None:
        """Waits until something listens on a Unix socket of the guest."""
        self._wait(
            "wait_for_open_unix_socket",
            timeout,
            attempt_timeout,
            addr=addr,
            is_datagram=is_datagram,
        )

    def copy_from_host(self, source: str, target: str) -> None:
        """Copies a file or directory of the host into the guest."""
        self._checked_call("copy_from_host", source=source, target=target)

    def copy_from_host_via_shell(self, source: str, target: str) -> None:
        """Copies a file of the host into the guest without a shared directory."""
        self._checked_call("copy_from_host_via_shell", source=source, target=target)

    def copy_from_machine(self, source: str, target_dir: str = "") -> None:
        """Copies a file or directory of the guest below the output directory."""
        self._checked_call("copy_from_machine", source=source, target_dir=target_dir)

    def copy_from_vm(self, source: str, target_dir: str = "") -> None:
        """The old name of copy_from_machine."""
        deprecation.renamed("copy_from_vm()", "copy_from_machine()")
        self.copy_from_machine(source, target_dir)

    # Screen and keyboard

    def screenshot(self, filename: str) -> None:
        """Saves the screen as PNG; a bare name goes to the output directory."""
        self._checked_call("screenshot", filename=filename)

    def get_screen_text(self) -> str:
        """Returns what is written on the screen, as tesseract reads it."""
        return self._checked_call("get_screen_text")

    def get_screen_text_variants(self) -> list[str]:
        """Returns several readings of the screen, of differently treated pictures."""
        return self._checked_call("get_screen_text_variants")

    def wait_for_text(self, regex: str, timeout: Duration = FIFTEEN_MINUTES) -> None:
        """Waits until a reading of the screen matches."""
        self._wait("wait_for_text", timeout, regex=pattern_of(regex))

    def send_key(
        self,
        key: str,
        delay: Duration | None = TEN_MILLISECONDS,
        log: bool | None = True,
    ) -> None:
        """Presses a key or a chord such as "ctrl-alt-delete", then waits delay."""
        self._checked_call(
            "send_key", key=key, delay=seconds(delay, "send_key"), log=bool(log)
        )

    def send_chars(
        self, chars: str, delay: Duration | None = TEN_MILLISECONDS
    ) -> None:
        """Types a text, with delay after each key."""
        self._checked_call(
            "send_chars", chars=chars, delay=seconds(delay, "send_chars")
        )

    def get_window_names(self) -> list[str]:
        return self._checked_call("get_window_names")

    def wait_for_window(self, regexp: str, timeout: Duration = FIFTEEN_MINUTES) -> None:
        """Waits until an X11 window has a name that matches."""
        self._wait("wait_for_window", timeout, regexp=pattern_of(regexp))

    def wait_for_x(self, timeout: Duration = FIFTEEN_MINUTES) -> None:
        """Waits until there is an X server to connect to."""
        self._wait("wait_for_x", timeout)

    def ssh_backdoor_command(self) -> str:
        """Returns the command that logs in as root, where the test has a backdoor."""
        return self._call("ssh_backdoor_command")
