for name in "ab":
    with subtest(name):
        print("not reached")
with subtest("c"):
    print("not reached")
print("end")
