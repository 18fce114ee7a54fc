# machines: machine
# A user logs in on the first virtual terminal, is turned away with a wrong
# password, and logs out.
import re

machine.wait_for_unit("multi-user.target")


def type_line(text):
    machine.send_chars(text + "\n")


def log_in(user, password):
    machine.wait_until_tty_matches("1", r"login:\s*$")
    type_line(user)
    machine.wait_until_tty_matches("1", "Password: ")
    type_line(password)


with subtest("a prompt appears"):
    machine.wait_until_tty_matches("1", r"machine login: ")
    assert "machine login:" in machine.get_tty_text("1")

with subtest("the wrong password does not do"):
    log_in("alice", "guess")
    machine.wait_until_tty_matches("1", "Login incorrect", timeout=60)

with subtest("the right one does"):
    machine.wait_until_tty_matches("1", r"(?s)incorrect.*login:\s*$")
    log_in("alice", "foobar")
    machine.wait_until_succeeds("ps | grep '[a]lice .*-bash'")
    type_line("touch done; echo I am $(id -un), shell level $SHLVL")
    machine.wait_for_file("/home/alice/done")
    machine.wait_until_tty_matches("1", r"I am alice, shell level \d")
    assert machine.succeed("stat -c %U /home/alice/done") == "alice\n"

with subtest("a key that is not a character"):
    machine.send_key("ctrl-d")
    machine.wait_until_fails("ps | grep '[a]lice .*-bash'")
    machine.wait_until_tty_matches("1", re.escape("machine login:") + r"\s*$")

with subtest("root needs no password"):
    type_line("root")
    machine.wait_until_tty_matches("1", r"bash-[0-9.]+#\s*$")
    type_line("tty > /root/which")
    machine.wait_for_file("/root/which")
    t.assertEqual(machine.wait_until_succeeds("grep . /root/which").strip(), "/dev/tty1")
