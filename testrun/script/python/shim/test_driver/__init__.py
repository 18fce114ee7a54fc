"""What a NixOS VM test script sees of its driver.

The driver itself is another process: everything here ends in a call through
test_driver.bridge.
"""
