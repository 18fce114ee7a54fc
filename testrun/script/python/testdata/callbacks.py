# Polling conditions are checked while something is waited for, too.
count = 0


@polling_condition(interval=0)
def healthy():
    global count
    count += 1
    only.execute(f"check {count}")
    return count < 5


with healthy:
    only.wait_until_succeeds("a")
    try:
        only.wait_until_succeeds("b")
    except Exception as e:
        print(type(e).__module__, type(e).__name__, e)
only.wait_until_succeeds("without")


# So are functions that scripts add themselves; their exceptions stay what they are.
class Odd(Exception):
    pass


def odd():
    if len(seen) == 2:
        raise Odd("the third time")
    seen.append(1)


seen = []
only.callbacks.append(odd)
try:
    only.wait_until_succeeds("c")
except Odd as e:
    print("Odd:", e)
only.callbacks.remove(odd)
print(only.succeed("d"))
