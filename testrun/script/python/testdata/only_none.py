with subtest("a"):
    print("not reached")
print("end")
