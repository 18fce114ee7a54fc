import atexit
import threading

atexit.register(lambda: machine.succeed("from an exit handler"))


def late():
    threading.main_thread().join()
    machine.succeed("from a thread")


threading.Thread(target=late).start()
machine.execute("from the script")
atexit.register(lambda: print(len(only.succeed("thread " + "x" * 100_000))))
