"""What a NixOS VM test script sees of its driver.

The driver itself is another process: everything here ends in a call through
test_driver.bridge. The modules have the names that scripts import from in
nixpkgs' driver; what is used rarely is imported when it is used.
"""
