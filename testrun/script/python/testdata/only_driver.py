with subtest("a"):
    print("not reached")
with driver.subtest("through the driver"):
    only.succeed("b")
