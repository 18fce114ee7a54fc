# machines: machine
# The serial console: waiting for text, reading it, and writing to it.
import re


def say(text):
    machine.succeed(f"echo {text} > /dev/ttyS0")


machine.start()
machine.wait_for_console_text("connecting to host")
machine.connect()

say("the answer is 42")
machine.wait_for_console_text(r"answer is (\d+)")
assert re.search(r"^the answer is 42$", machine.get_console_log(), re.MULTILINE)

with subtest("two texts that came together are found one after the other"):
    machine.succeed("printf 'first thing\\nsecond thing\\n' > /dev/ttyS0")
    machine.wait_for_console_text("first thing", timeout=30)
    machine.wait_for_console_text("second thing", timeout=30)

with subtest("what was found is not found again"):
    try:
        machine.wait_for_console_text("first thing", timeout=1)
    except Exception as e:
        assert "timed out" in str(e), e
    else:
        raise Exception("found twice")

with subtest("what has not been asked for can be found later"):
    say("early bird")
    machine.sleep(1)
    machine.wait_for_console_text("early b[a-z]+d", timeout=30)

with subtest("a line for the guest"):
    machine.execute("(read -r line < /dev/ttyS0 && echo \"$line\" > /tmp/line) >/dev/null 2>&1 &")
    machine.sleep(1)
    machine.send_console("typed on the console\n")
    machine.wait_for_file("/tmp/line", timeout=60)
    assert machine.succeed("cat /tmp/line") == "typed on the console\n"

serial_stdout_off()
say("nobody sees this")
serial_stdout_on()
machine.wait_for_console_text("nobody sees")
assert "nobody sees this" in machine.get_console_log()
