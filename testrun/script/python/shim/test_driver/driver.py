"""The driver as scripts see it, and the symbols of a script."""

from __future__ import annotations

import linecache
import os
import re

from test_driver import deprecation
from test_driver.bridge import current
from test_driver.debug import Debug, DebugNop
from test_driver.duration import seconds
from test_driver.errors import MachineError, RequestedAssertionFailed
from test_driver.logger import CompositeLogger
from test_driver.machine import BaseMachine, NspawnMachine, QemuMachine, retry
from test_driver.polling_condition import TWO_SECONDS, Condition, PollingCondition
from test_driver.subtest import Subtest, Subtests
from test_driver.vlan import VLan, names_of

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    import unittest
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from types import CodeType
    from typing import Any

    from test_driver.bridge import Bridge
    from test_driver.debug import DebugAbstract
    from test_driver.duration import Duration
    from test_driver.logger import AbstractLogger


class InvalidScript(Exception):
    """The test script cannot be compiled."""

    def __init__(self, path: str, cause: Exception) -> None:
        self.path = path
        self.cause = cause
        self.line = 0
        if isinstance(cause, SyntaxError) and cause.lineno:
            self.line = cause.lineno
            super().__init__(f"{path}:{cause.lineno}: {cause.msg}")
        else:
            super().__init__(f"{path}: {cause}")


class LazyTestCase:
    """Stands for a unittest.TestCase, which takes longer to import than all of
    test_driver and which few scripts use."""

    def _case(self) -> unittest.TestCase:
        case = self.__dict__.get("case")
        if case is None:
            import unittest

            case = unittest.TestCase()
            case.failureException = RequestedAssertionFailed
            self.__dict__["case"] = case
        return case

    def __getattr__(self, name: str) -> Any:
        return getattr(self._case(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._case(), name, value)


class Driver:
    """All machines of a test and the script that drives them.

    The script's own is `driver`. One that a script makes itself, with the
    arguments of any generation of nixpkgs, has machines of its own; it shares
    the log, the VLANs and the time-out of the running test.
    """

    _init: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        from pathlib import Path

        from test_driver.config import Arguments

        given = Arguments(args, kwargs)
        if given.config.containers:
            raise NotImplementedError(
                "nixos-test-run cannot run containers, only virtual machines"
            )
        bridge = current()
        known = {vlan["nr"]: vlan for vlan in vlans_of_test}
        unknown = [nr for nr in given.config.vlans if nr not in known]
        if unknown:
            raise ValueError(
                f"VLANs {unknown} are not among those of the running test: "
                "start nixos-test-run with --vlans"
            )
        self._setup(bridge, given.logger, given.debug or DebugNop())
        self.config = given.config
        self.tests = given.tests
        self.out_dir = Path.cwd() if given.out_dir is None else Path(given.out_dir)
        self.vlans = [VLan(**known[nr]) for nr in given.config.vlans]
        self.machines_qemu = [
            QemuMachine(
                start_command=machine.start_script,
                name=machine.name,
                keep_machine_state=given.keep_machine_state,
                out_dir=given.out_dir,
                logger=self.log,
                callbacks=[self.check_polling_conditions],
            )
            for machine in given.machines
        ]
        self.machines = sorted(self.machines_qemu, key=lambda machine: machine.name)
        self._of_test = False

    @classmethod
    def of_test(cls, bridge: Bridge, init: dict[str, Any]) -> Driver:
        """Returns the driver of the test that is being run."""
        driver = cls.__new__(cls)
        log = CompositeLogger()
        attach = init["debug_hook"]
        driver._setup(bridge, log, Debug(log, attach) if attach else DebugNop())
        driver.subtests = Subtests(log, init["keep_going"], init["subtest"])
        driver._init = init
        driver._of_test = True
        driver.machines_qemu = [
            QemuMachine.known(bridge, log, info, [driver.check_polling_conditions])
            for info in init["machines"]
        ]
        driver.machines = list(driver.machines_qemu)
        vlans_of_test.extend(
            {"nr": nr, "tmp_dir": init["tmp_dir"]} for nr in init["vlans"]
        )
        driver.vlans = [VLan(**vlan) for vlan in vlans_of_test]
        return driver

    def _setup(
        self, bridge: Bridge, log: AbstractLogger | None, debug: DebugAbstract
    ) -> None:
        self._bridge = bridge
        self.log = self.logger = log or CompositeLogger()
        self.debug = debug
        self.subtests = Subtests(self.log)
        self.polling_conditions: list[PollingCondition] = []
        self.machines_nspawn: list[NspawnMachine] = []
        self._test_case = LazyTestCase()

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: Any) -> None:
        if not self._of_test:
            with self.log.nested("cleanup"):
                for machine in self.machines:
                    machine.release()

    def __getattr__(self, name: str) -> Any:
        # What takes time to make, of the driver of the test.
        init = self.__dict__.get("_init", {})
        if name in ("out_dir", "tmp_dir") and name in init:
            from pathlib import Path

            return Path(init[name])
        if name == "tests" and init:
            with open(init["script_path"], encoding="utf-8") as file:
                return file.read()
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # Symbols and script

    def test_symbols(self) -> dict[str, Any]:
        """Returns the globals of the script and prints their names."""
        general: dict[str, Any] = {
            "start_all": self.start_all,
            "test_script": self.test_script,
            "machines": self.machines,
            "machines_qemu": self.machines_qemu,
            "machines_nspawn": self.machines_nspawn,
            "vlans": self.vlans,
            "driver": self,
            "log": self.log,
            "os": os,
            "create_machine": self.create_machine,
            "subtest": self.subtest,
            "run_tests": self.run_tests,
            "join_all": self.join_all,
            "retry": retry,
            "serial_stdout_off": self.serial_stdout_off,
            "serial_stdout_on": self.serial_stdout_on,
            "polling_condition": self.polling_condition,
            "BaseMachine": BaseMachine,
            "QemuMachine": QemuMachine,
            "NspawnMachine": NspawnMachine,
            "Machine": QemuMachine,
            "t": self._test_case,
            "debug": self.debug,
            "dump_machine_ssh": self.dump_machine_ssh,
            "succeed_all": self.succeed_all,
        }
        if not self.machines:
            general["Driver"] = Driver  # for scripts that make their own
        machines = {pythonize_name(m.name): m for m in self.machines}
        if len(self.machines) == 1:
            machines.setdefault("machine", self.machines[0])
        vlans = {f"vlan{vlan.nr}": vlan for vlan in self.vlans}
        groups = [list(machines), list(vlans), list(general)]
        names = ",\n    ".join(", ".join(group) for group in groups if group)
        print(f"additionally exposed symbols:\n    {names}")
        return {**general, **machines, **vlans}

    def run_script(self) -> None:
        """Runs the test script, for a driver that reports it."""
        path = self._init["script_path"] if self._of_test else "<string>"
        try:
            text = self.tests
            code = compile(text, "<string>", "exec", dont_inherit=True)
        except (OSError, SyntaxError, ValueError) as error:
            raise InvalidScript(path, error) from None
        self.subtests.check(text)
        # So that tracebacks have the script's lines.
        lines = text.splitlines(True)
        linecache.cache["<string>"] = (len(text), None, lines, "<string>")
        symbols = self.test_symbols()
        self._warn_of_old_names(code)
        try:
            exec(code, symbols)
        except MachineError:
            raise
        except Exception as error:
            self.debug.post_mortem(error)
            raise

    def _warn_of_old_names(self, code: CodeType) -> None:
        if uses_global(code, "Machine"):
            deprecation.renamed("Machine", "QemuMachine")
        if len(self.machines) == 1 and uses_global(code, "machine"):
            name = pythonize_name(self.machines[0].name)
            if name != "machine":
                deprecation.warn(
                    "'machine' as another name of the only machine is deprecated. "
                    f"Use {name!r} instead."
                )

    def test_script(self) -> None:
        """Runs the test script."""
        with self.log.nested("run the VM test script"):
            self.run_script()

    def run_tests(self) -> None:
        """Runs the test script, then flushes the disks of running machines."""
        self.test_script()
        for machine in self.machines:
            if machine.is_up():
                machine.execute("sync")

    def subtest(self, name: str, *, isolate: bool = False) -> Subtest:
        """Groups a part of the test, which reports list by its name. With isolate,
        what it does to machines that run when it begins is undone at its end."""
        return self.subtests.subtest(name, isolate)

    # All machines

    def start_all(self) -> None:
        """Starts all machines."""
        if self._of_test:
            self._bridge.call("start_all", {})
            return
        with self.log.nested("start all VMs"):
            for machine in self.machines:
                machine.start()

    def join_all(self) -> None:
        """Waits until all machines are off."""
        if self._of_test:
            self._bridge.call("join_all", {})
            return
        with self.log.nested("wait for all VMs to finish"):
            for machine in self.machines:
                machine.wait_for_shutdown()

    def succeed_all(
        self,
        command: str,
        machines: Iterable[BaseMachine | str] | None = None,
        timeout: Duration | None = None,
    ) -> dict[str, str]:
        """Runs a command on all machines, or on some, at once; it must succeed on
        each. Returns the outputs by machine."""
        names = names_of(self.machines if machines is None else machines)
        self.check_polling_conditions()
        return self._bridge.call(
            "succeed_all",
            {"machines": names, "command": command, "timeout": seconds(timeout)},
        )

    def create_machine(
        self,
        start_command: str | dict[str, Any],
        *,
        name: str | None = None,
        keep_machine_state: bool = False,
        keep_vm_state: bool = False,
    ) -> QemuMachine:
        """Makes a machine that is not among `machines`; the caller starts it."""
        if isinstance(start_command, dict):  # up to nixpkgs 24.05
            legacy = dict(start_command)
            start_command = legacy.pop("startCommand")
            return self.create_machine(start_command, **legacy)
        if keep_vm_state:
            deprecation.renamed(
                "create_machine(keep_vm_state=…)", "create_machine(keep_machine_state=…)"
            )
        return QemuMachine(
            start_command=start_command,
            name=name,
            keep_machine_state=keep_machine_state or keep_vm_state,
            logger=self.log,
        )

    def dump_machine_ssh(self, offset: int | None = None) -> None:
        """Prints how to log in to each machine, where the test has a backdoor."""
        table = self._bridge.call("dump_machine_ssh", {"offset": offset})
        if table:
            print(table)

    def serial_stdout_on(self) -> None:
        """Shows serial consoles on the terminal (they always are recorded)."""
        self.log.print_serial_logs(True)

    def serial_stdout_off(self) -> None:
        """Hides serial consoles on the terminal."""
        self.log.print_serial_logs(False)

    # Polling conditions

    def polling_condition(
        self,
        fun_: Callable[[], bool | None] | None = None,
        *,
        seconds_interval: Duration | None = None,
        interval: Duration | None = None,
        description: str | None = None,
    ) -> Any:
        """Decorator: makes a condition of a function that returns False or
        raises when it does not hold. It is called every interval (default 2 s)
        at most."""
        if seconds_interval is not None:
            deprecation.renamed(
                "polling_condition(seconds_interval=…)", "polling_condition(interval=…)"
            )
            interval = seconds_interval if interval is None else interval
        seconds(interval, "polling_condition")

        def decorate(fun: Callable[[], bool | None]) -> Condition:
            condition = PollingCondition(
                fun,
                self.log,
                TWO_SECONDS if interval is None else interval,
                description,
            )
            return Condition(condition, self.polling_conditions)

        return decorate if fun_ is None else decorate(fun_)

    def check_polling_conditions(self) -> None:
        for condition in self.polling_conditions:
            condition.maybe_raise()


vlans_of_test: list[dict[str, Any]] = []  # arguments of VLan


def pythonize_name(name: str) -> str:
    """Returns the identifier under which scripts know a machine."""
    return re.sub("^[^A-Za-z_]|[^A-Za-z0-9_]", "_", name)


def uses_global(code: CodeType, name: str) -> bool:
    """Says whether code reads a global variable, itself or in a function."""
    if name in code.co_names:  # those of attributes as well
        import dis

        for instruction in dis.get_instructions(code):
            if instruction.argval == name and instruction.opname in (
                "LOAD_NAME",
                "LOAD_GLOBAL",
            ):
                return True
    return any(
        uses_global(constant, name)
        for constant in code.co_consts
        if isinstance(constant, type(code))
    )
