only.save("before")
only.restore(name="before")
with only.rollback():
    only.succeed("a")
try:
    with only.rollback():
        only.succeed("false")
        print("not reached")
except AssertionError as error:
    print("goes on:", error)
with subtest("isolated", isolate=True):
    only.succeed("b")
with subtest("fails", isolate=True), only.rollback():
    only.succeed("die")


@subtest("decorated", isolate=True)
def decorated():
    only.succeed("c")


decorated()
try:
    only._info["name"] = "off"  # cannot be saved
    with only.rollback():
        print("not reached")
except Exception as error:
    print("refused:", error)
try:
    subtest("positional", True)
except TypeError:
    print("isolate is a keyword")
