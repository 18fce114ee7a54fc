# machines: machine
# exit: 1
# message: this cannot go on
# never: never reached
machine.start()
log.error("this cannot go on")
print("never reached")
