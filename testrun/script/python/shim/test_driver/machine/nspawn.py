"""Containers."""

from __future__ import annotations

from test_driver.machine.base import BaseMachine

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from typing import Any


class NspawnMachine(BaseMachine):
    """A container of systemd-nspawn. This driver has no backend for them: the class
    is here for scripts that name it in types and in isinstance()."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            "nixos-test-run cannot run containers (NspawnMachine), only virtual machines"
        )
