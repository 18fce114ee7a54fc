# machines: machine
# QEMU's own protocol: commands, and events that a filter chooses.
machine.wait_for_unit("multi-user.target")

status = machine.qmp_client.send("query-status")["return"]
assert status["running"] is True, status
assert any(cpu["thread-id"] > 0 for cpu in machine.qmp_client.send("query-cpus-fast")["return"])

machine.qmp_client.send("stop")
event = machine.wait_for_qmp_event(lambda e: e["event"] == "STOP", timeout=30)
assert event["timestamp"]["seconds"] > 0, event
machine.qmp_client.send("cont")
machine.wait_for_qmp_event(lambda e: e["event"] == "RESUME")
machine.succeed("true")

with subtest("an event that does not come"):
    try:
        machine.wait_for_qmp_event(lambda e: e["event"] == "NIC_RX_FILTER_CHANGED_TWICE", timeout=1)
    except TimeoutError:
        pass
    else:
        raise Exception("an event without a name came")

with subtest("the guest says goodbye"):
    machine.execute("(sleep 0.3; poweroff) >/dev/null 2>&1 &")
    event = machine.wait_for_qmp_event(lambda e: e["event"] == "SHUTDOWN")
    assert event["data"]["guest"] is True, event
