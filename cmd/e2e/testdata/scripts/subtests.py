# machines: machine
# arguments: --junit-xml report.xml
# Subtests in loops and functions, within each other, and messages between them.
machine.start()

CASES = {
    "addition": ("echo $((1 + 2))", "3"),
    "substitution": ("x=abc; echo ${x/b/-}", "a-c"),
    "brace expansion": ("echo {a,b}{1,2}", "a1 a2 b1 b2"),
    "a name with <special> & \"quoted\" characters": ("printf '%s' \"'\"", "'"),
}

for name, (command, want) in CASES.items():
    with subtest(name):
        got = machine.succeed(command).rstrip("\n")
        assert got == want, f"{name}: {got!r} instead of {want!r}"


def check_limits(resource, option):
    with subtest(f"limit of {resource}"):
        value = machine.succeed(f"ulimit {option}").strip()
        machine.log(f"{resource}: {value}")
        assert value == "unlimited" or int(value) > 0


for args in [("open files", "-n"), ("stack", "-s")]:
    check_limits(*args)

with subtest("outer"):
    with machine.nested("a group of the machine"):
        log.info("a message of the script")
        with log.nested("a group of the script"), subtest("inner"):
            machine.succeed("true")
