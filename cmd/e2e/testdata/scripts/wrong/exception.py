# machines: machine
# exit: 1
# message: !!! KeyError: 'port'
# message:     raise KeyError(key)
settings = {}


def lookup(key):
    if key not in settings:
        raise KeyError(key)


with subtest("settings are complete"):
    machine.start()
    lookup("port")
