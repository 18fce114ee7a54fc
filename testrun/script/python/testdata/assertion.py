def check(what):
    machine.succeed(what)


with subtest("it works"):
    with subtest("inside"):
        print("fine")
    check("false")
print("not reached")
