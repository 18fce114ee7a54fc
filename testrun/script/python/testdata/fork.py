import os

pid = os.fork()
if pid == 0:
    try:
        machine.succeed("from the child")
    except RuntimeError as e:
        print(e)
else:
    os.waitpid(pid, 0)
    machine.succeed("from the parent")
