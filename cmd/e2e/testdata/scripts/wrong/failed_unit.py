# machines: server
# exit: 1
# message: !!! RequestedAssertionFailed: unit "broken.service" reached state "failed"
server.systemctl("start --no-block broken.service")
server.wait_for_unit("broken.service")
