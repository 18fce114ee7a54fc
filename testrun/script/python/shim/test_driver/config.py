"""What scripts that make a Driver themselves describe it with.

nixpkgs' Driver has had three lists of parameters; each is understood.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    import os
    from typing import Any

# In their order, for positional arguments.
TO_25_11 = ("start_scripts", "vlans", "tests", "out_dir", "logger")
TO_25_11_OPTIONAL = ("keep_vm_state", "global_timeout", "debug")
TO_26_05 = (
    *("vm_names", "vm_start_scripts", "container_names", "container_start_scripts"),
    *("vlans", "tests", "out_dir", "logger"),
)
TO_26_05_OPTIONAL = ("keep_machine_state", "global_timeout", "debug")
NEWEST = ("config", "out_dir", "logger")
NEWEST_OPTIONAL = ("keep_machine_state", "debug")


class MachineConfiguration:
    """One machine."""

    def __init__(self, name: str | None, start_script: str, **_: Any) -> None:
        self.name = name
        self.start_script = str(start_script)


class DriverConfiguration:
    """A test."""

    def __init__(
        self,
        vms: dict[str, Any] | None = None,
        containers: dict[str, Any] | None = None,
        vlans: Any = (),
        global_timeout: Any = None,
        enable_ssh_backdoor: bool = False,
        test_script: str | os.PathLike[str] | None = None,
        **_: Any,
    ) -> None:
        self.vms = {key: machine_of(value) for key, value in (vms or {}).items()}
        self.containers = containers or {}
        self.vlans = [int(nr) for nr in vlans]
        self.global_timeout = global_timeout
        self.enable_ssh_backdoor = enable_ssh_backdoor
        self.test_script = test_script


def machine_of(value: Any) -> Any:
    return MachineConfiguration(**value) if isinstance(value, dict) else value


def load_driver_configuration(path: str | os.PathLike[str]) -> DriverConfiguration:
    """Reads the file that nixpkgs gives to --config."""
    import json

    with open(path, encoding="utf-8") as file:
        return DriverConfiguration(**json.load(file))


class Arguments:
    """Arguments of Driver, whichever its parameters."""

    def __init__(self, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = parse(positional, named)
        self.out_dir = given.get("out_dir")
        self.logger = given.get("logger")
        self.debug = given.get("debug")
        self.keep_machine_state = bool(
            given.get("keep_machine_state") or given.get("keep_vm_state")
        )
        self.tests: str = given.get("tests", "")
        config: DriverConfiguration | None = given.get("config")
        if config is None:
            scripts = given.get("vm_start_scripts", given.get("start_scripts", []))
            names = given.get("vm_names") or [None] * len(scripts)
            config = DriverConfiguration(
                vlans=given["vlans"],
                containers=dict.fromkeys(given.get("container_start_scripts", [])),
            )
            self.machines = list(map(MachineConfiguration, names, scripts))
        else:
            self.machines = list(config.vms.values())
            if not self.tests and config.test_script:
                with open(config.test_script, encoding="utf-8") as file:
                    self.tests = file.read()
        self.config = config


def parse(positional: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    first = positional[0] if positional else None
    required: tuple[str, ...]
    optional: tuple[str, ...]
    if "config" in named or hasattr(first, "vms"):
        required, optional = NEWEST, NEWEST_OPTIONAL
    elif "vm_start_scripts" in named or len(positional) + len(named) >= len(TO_26_05):
        required, optional = TO_26_05, TO_26_05_OPTIONAL
    else:
        required, optional = TO_25_11, TO_25_11_OPTIONAL
    names = required + optional
    given = dict(zip(names, positional))
    twice = sorted(given.keys() & named.keys())
    unknown = sorted(named.keys() - set(names) - {"keep_machine_state"})
    given.update(named)
    missing = [name for name in required if name not in given]
    if len(positional) > len(names) or twice or unknown or missing:
        raise TypeError(
            f"Driver() takes {', '.join(required)} and optionally "
            f"{', '.join(optional)}"
        )
    return given
