"""What a NixOS VM test script sees of its driver.

The driver itself is another process: everything here ends in a call through
test_driver.bridge. The modules have the names that scripts import from in
nixpkgs' driver; what is used rarely is imported when it is used.
"""

LOGGERS = ("CompositeLogger", "JunitXMLLogger", "LogLevel", "TerminalLogger", "XMLLogger")


def __getattr__(name):  # type: ignore[no-untyped-def]
    # Names that nixpkgs' package imports for its own main function.
    from importlib import import_module

    if name == "Driver":
        return import_module("test_driver.driver").Driver
    if name in LOGGERS:
        return getattr(import_module("test_driver.logger"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
