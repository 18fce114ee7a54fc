"""Warnings about what nixpkgs has renamed, each at most once."""

from __future__ import annotations

from test_driver.bridge import current

given: set[str] = set()


def warn(text: str) -> None:
    """Logs a warning, unless the same has been given before."""
    if text not in given:
        given.add(text)
        current().call("log", {"level": "warning", "message": text, "machine": ""})


def renamed(old: str, new: str) -> None:
    """Warns that a name is an old one."""
    warn(f"{old} is deprecated. Use {new} instead.")
