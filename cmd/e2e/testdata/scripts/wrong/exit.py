# machines: machine
# exit: 5
# never: Traceback
import sys

machine.start()
sys.exit(5)
