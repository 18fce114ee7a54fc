# What goes wrong in a thread is shown, and is not the script's failure.
import threading


def work():
    only.succeed("false")


thread = threading.Thread(target=work, name="worker")
thread.start()
thread.join()
with subtest("goes on"):
    only.succeed("after the thread")
