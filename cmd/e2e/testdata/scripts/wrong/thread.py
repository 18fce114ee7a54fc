# machines: machine
# exit: 1
# message: !!! RequestedAssertionFailed: command `exit 9` failed (exit code 9)
from concurrent.futures import ThreadPoolExecutor

with ThreadPoolExecutor() as pool:
    for future in [pool.submit(machine.succeed, "true"), pool.submit(machine.succeed, "exit 9")]:
        future.result()
