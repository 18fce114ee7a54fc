"""The place of QMPSession up to nixpkgs 25.05."""

from test_driver.machine.qmp import QMPAPIError, QMPSession

__all__ = ["QMPAPIError", "QMPSession"]
