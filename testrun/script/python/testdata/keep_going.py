from contextlib import ExitStack

with subtest("fine"):
    only.succeed("a")
with subtest("fails"):
    only.succeed("false")
    print("not reached")
with subtest("outer"):
    with subtest("inner"):
        raise ValueError("of the inner")
    print("after the inner")


@subtest("decorated")
def decorated():
    1 / 0


decorated()
with ExitStack() as stack:
    stack.enter_context(subtest("entered"))
    only.succeed("die")
only.succeed("end of the script")
