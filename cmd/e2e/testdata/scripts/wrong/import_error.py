# machines: machine
# exit: 1
# message: !!! ModuleNotFoundError: No module named 'requests_with_a_typo'
import requests_with_a_typo

requests_with_a_typo.get(machine)
