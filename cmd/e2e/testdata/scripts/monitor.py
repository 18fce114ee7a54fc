# machines: machine
# The monitor of QEMU, for what the driver has no method for.
machine.start()
machine.wait_for_unit("multi-user.target")

assert "VM status: running" in machine.send_monitor_command("info status")
assert "eth0" in machine.succeed("ls /sys/class/net")

machine.send_monitor_command("stop")
assert "paused" in machine.send_monitor_command("info status")
machine.send_monitor_command("cont")
machine.succeed("true")

answer = machine.send_monitor_command("no-such-command")
assert "unknown command" in answer, answer
assert "virtio" in machine.send_monitor_command("info qtree")  # a long answer

machine.send_monitor_command("system_powerdown")
machine.send_monitor_command(f"screendump {machine.state_dir}/screen.ppm")
assert open(f"{machine.state_dir}/screen.ppm", "rb").read(2) == b"P6"
