# machines: machine
# exit: 1
# message: !!! NameError: name 'machin' is not defined
# message:     machin.succeed("true")
def f():
    machin.succeed("true")


f()
