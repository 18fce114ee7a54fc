# The start script notes when it runs; there is no more to it.
machine.start()
