# Exceptions of signal handlers end a call and leave the connection whole.
import signal


class Alarm(Exception):
    pass


def ring(*_):
    raise Alarm


signal.signal(signal.SIGALRM, ring)
for size in (1, 1 << 20):
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        only.succeed("hang", "thread " + "x" * size)
    except Alarm:
        print("alarm")
print(only.succeed("works"))
raise KeyboardInterrupt
