# machines: machine
# exit: 3
# message: /nonexistent/settings.json
machine.copy_from_host("/nonexistent/settings.json", "/etc/settings.json")
