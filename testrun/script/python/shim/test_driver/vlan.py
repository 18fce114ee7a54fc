"""Virtual networks between machines."""


class VLan:
    """One virtual network; the driver owns its switch."""

    def __init__(self, nr: int) -> None:
        self.nr = nr

    def __repr__(self) -> str:
        return f"<Vlan Nr. {self.nr}>"
