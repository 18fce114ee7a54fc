"""The driver as scripts see it, and the symbols of a script."""

from __future__ import annotations

import linecache
import os
import re

from test_driver.bridge import Bridge, seconds
from test_driver.errors import RequestedAssertionFailed
from test_driver.logger import Block, Logger
from test_driver.machine import BaseMachine, QemuMachine, retry
from test_driver.polling_condition import PollingCondition
from test_driver.vlan import VLan

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    import unittest
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Any

    from test_driver.machine import Duration


class InvalidScript(Exception):
    """The test script cannot be compiled."""

    def __init__(self, path: str, cause: Exception) -> None:
        if isinstance(cause, SyntaxError) and cause.lineno:
            super().__init__(f"{path}:{cause.lineno}: {cause.msg}")
        else:
            super().__init__(f"{path}: {cause}")
        self.path = path
        self.cause = cause


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


class ActiveCondition:
    """What the decorator polling_condition makes of a function.

    In a `with` statement, the condition is checked before each command.
    """

    def __init__(self, driver: Driver, condition: PollingCondition) -> None:
        self._driver = driver
        self.condition = condition

    def __enter__(self) -> None:
        self._driver.polling_conditions.append(self.condition)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._driver.polling_conditions.remove(self.condition)

    def wait(
        self, timeout_seconds: Duration | None = None, timeout: Duration | None = None
    ) -> None:
        """Waits until the condition holds (default: up to 15 minutes)."""
        log = self._driver.log
        description = self.condition.description

        def attempt(last: bool) -> bool:
            if last:
                log.info(f"Last chance for {description}")
            holds = self.condition.check(force=True)
            if not holds and not last:
                log.info(f"({description} failure not fatal yet)")
            return holds

        with log.nested(f"waiting for {description}"):
            retry(attempt, timeout_seconds=timeout_seconds, timeout=timeout)


class Driver:
    """All machines of a test and the script that drives them."""

    def __init__(self, bridge: Bridge, init: dict[str, Any]) -> None:
        self._bridge = bridge
        self._init = init
        self.log = self.logger = Logger(bridge)
        self.polling_conditions: list[PollingCondition] = []
        self.machines: list[BaseMachine] = [
            QemuMachine(bridge, self.log, info, [self.check_polling_conditions])
            for info in init["machines"]
        ]
        self.vlans = [VLan(nr) for nr in init["vlans"]]
        self._test_case = LazyTestCase()

    @property
    def out_dir(self) -> Path:
        from pathlib import Path

        return Path(self._init["out_dir"])

    @property
    def tmp_dir(self) -> Path:
        from pathlib import Path

        return Path(self._init["tmp_dir"])

    def test_symbols(self) -> dict[str, Any]:
        """Returns the globals of the script and prints their names."""
        general: dict[str, Any] = {
            "start_all": self.start_all,
            "join_all": self.join_all,
            "test_script": self.test_script,
            "run_tests": self.run_tests,
            "machines": self.machines,
            "vlans": self.vlans,
            "driver": self,
            "log": self.log,
            "os": os,
            "create_machine": self.create_machine,
            "subtest": self.subtest,
            "retry": retry,
            "polling_condition": self.polling_condition,
            "serial_stdout_off": self.serial_stdout_off,
            "serial_stdout_on": self.serial_stdout_on,
            "BaseMachine": BaseMachine,
            "QemuMachine": QemuMachine,
            "Machine": QemuMachine,
            "t": self._test_case,
        }
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
        path = self._init["script_path"]
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
            code = compile(text, "<string>", "exec", dont_inherit=True)
        except (OSError, SyntaxError, ValueError) as error:
            raise InvalidScript(path, error) from None
        # So that tracebacks have the script's lines.
        lines = text.splitlines(True)
        linecache.cache["<string>"] = (len(text), None, lines, "<string>")
        exec(code, self.test_symbols())

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

    def start_all(self) -> None:
        """Starts all machines."""
        self._bridge.call("start_all", {})

    def join_all(self) -> None:
        """Waits until all machines are off."""
        self._bridge.call("join_all", {})

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
        info = self._bridge.call(
            "create_machine",
            {
                "start_command": start_command,
                "name": name,
                "keep_machine_state": keep_machine_state or keep_vm_state,
            },
        )
        return QemuMachine(self._bridge, self.log, info)

    def subtest(self, name: str) -> Block:
        """Groups a part of the test, which reports list by its name."""
        return self.log.subtest(name)

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
        if interval is None:
            interval = 2.0 if seconds_interval is None else seconds_interval

        def decorate(fun: Callable[[], bool | None]) -> ActiveCondition:
            condition = PollingCondition(
                fun, self.log, seconds(interval) or 0.0, description
            )
            return ActiveCondition(self, condition)

        return decorate if fun_ is None else decorate(fun_)

    def check_polling_conditions(self) -> None:
        for condition in self.polling_conditions:
            condition.maybe_raise()

    def serial_stdout_on(self) -> None:
        """Shows serial consoles on the terminal (they always are recorded)."""
        self._bridge.call("serial_stdout", {"on": True})

    def serial_stdout_off(self) -> None:
        self._bridge.call("serial_stdout", {"on": False})


def pythonize_name(name: str) -> str:
    """Returns the identifier under which scripts know a machine."""
    return re.sub("^[^A-Za-z_]|[^A-Za-z0-9_]", "_", name)
