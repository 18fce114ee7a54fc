with subtest("a"): print("not reached"); only.succeed("not reached")
with subtest("b"):
    print("b runs")
    with subtest("nested"):
        print("nested runs")
with subtest("c") as nothing:
    print("not reached")


def function(name):
    with subtest(name):
        for x in range(2):
            print(name, x)
        return "returned"
    return "skipped"


for name in ["d", "b2", "e", "deep"]:
    print(name, function(name))

with subtest("f"), open("/dev/null") as file:
    print("not reached")
with open("/dev/null") as file, subtest("g"):
    raise ValueError("not reached")
try:
    with subtest("h"):
        while True:
            pass
finally:
    print("finally")


class Tests:
    def each(self):
        return [(yield_,) for yield_ in self.run()]

    def run(self):
        with subtest("in a generator"):
            yield 1
        with subtest("b in a generator"):
            yield 2


print(Tests().each())


@subtest("decorated")
def decorated():
    print("not reached")


@subtest("b, decorated")
def b_decorated():
    return 7


print(decorated(), b_decorated())
from contextlib import ExitStack

with ExitStack() as stack:
    stack.enter_context(subtest("cannot be skipped"))
    print("runs")
try:
    with subtest("bad"):
        raise ValueError("b fails")
except ValueError as e:
    print(e)
import sys

print(sys.gettrace())
print("end")
