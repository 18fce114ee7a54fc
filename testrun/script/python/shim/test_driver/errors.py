"""Exceptions that test scripts meet, and may catch."""


class MachineError(Exception):
    """A machine could not do what was asked of it."""


class RequestedAssertionFailed(AssertionError):
    """An expectation that the script stated was not met."""
