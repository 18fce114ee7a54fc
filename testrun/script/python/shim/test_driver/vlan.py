"""Virtual networks between machines."""

from __future__ import annotations

from test_driver.bridge import current
from test_driver.duration import seconds

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Any, TypeAlias

    from test_driver.duration import Duration
    from test_driver.machine import BaseMachine

    Node: TypeAlias = BaseMachine | str


class VLan:
    """One virtual network; the driver owns its switch.

    Faults of links are those of the whole network, or of one machine's part in
    it, and last until heal().
    """

    def __init__(
        self, nr: int, tmp_dir: str | os.PathLike[str] = "", logger: object = None
    ) -> None:
        self.nr = nr
        self._tmp_dir = tmp_dir

    def __repr__(self) -> str:
        return f"<Vlan Nr. {self.nr}>"

    @property
    def socket_dir(self) -> Path:
        """Where programs that speak the VDE protocol find the switch."""
        from pathlib import Path

        return Path(self._tmp_dir) / f"vde{self.nr}.ctl"

    def _call(self, method: str, **args: Any) -> Any:
        return current().call(f"vlan_{method}", {"vlan": self.nr, **args})

    def set_loss(self, loss: float, machine: Node | None = None) -> None:
        """Drops a share of the frames, from 0.0 to 1.0."""
        self._call("set_loss", loss=loss, machine=name_of(machine))

    def set_delay(
        self,
        delay: Duration,
        jitter: Duration = 0,
        machine: Node | None = None,
    ) -> None:
        """Delivers frames later, by delay give or take jitter."""
        self._call(
            "set_delay",
            delay=seconds(delay),
            jitter=seconds(jitter),
            machine=name_of(machine),
        )

    def partition(self, *groups: Iterable[Node] | Node) -> None:
        """Lets machines reach only those of their own group."""
        self._call("partition", groups=[names_of(group) for group in groups])

    def heal(self) -> None:
        """Undoes all faults."""
        self._call("heal")

    def stats(self) -> list[dict[str, Any]]:
        """Returns what each machine's port has carried: a dictionary with machine,
        from_frames, from_bytes, to_frames, to_bytes and dropped."""
        return self._call("stats")


def name_of(node: Node | None) -> str | None:
    return node if node is None or isinstance(node, str) else node.name


def names_of(group: Iterable[Node] | Node) -> list[str | None]:
    if isinstance(group, str) or hasattr(group, "name"):
        return [name_of(group)]  # type: ignore[arg-type]
    return [name_of(node) for node in group]
