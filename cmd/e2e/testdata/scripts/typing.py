# machines: machine
# Every character of an American keyboard reaches the guest as itself.
import string
from datetime import timedelta

machine.wait_until_tty_matches("1", "login: ")
machine.send_chars("root\n")
machine.wait_until_tty_matches("1", r"bash-[0-9.]+# ")
machine.send_chars("cat > /tmp/typed\n")
machine.wait_for_file("/tmp/typed")

lines = [string.ascii_lowercase, string.ascii_uppercase, string.digits, string.punctuation.replace("\\", "")]
for line in lines:
    machine.send_chars(line + "\n", delay=timedelta(milliseconds=2))
machine.send_chars("back\\slash\n", delay=0.002)
machine.send_key("ctrl-d")
machine.wait_until_succeeds("grep slash /tmp/typed")
typed = machine.succeed("cat /tmp/typed").splitlines()
assert typed == [*lines, "back\\slash"], typed

with subtest("a chord, without a note in the log"):
    machine.send_chars("sleep 1000\n")
    machine.wait_until_succeeds("ps | grep '[s]leep 1000'")
    machine.send_key("ctrl-c", log=False)
    machine.wait_until_fails("ps | grep '[s]leep 1000'")

with subtest("another terminal"):
    machine.execute("(exec >/dev/tty2; sleep 1000) >/dev/null 2>&1 &")
    machine.send_key("alt-f2")
    machine.wait_until_succeeds("test $(cat /sys/class/tty/tty0/active) = tty2")
    machine.send_key("alt-f1")
    machine.wait_until_succeeds("test $(cat /sys/class/tty/tty0/active) = tty1")
