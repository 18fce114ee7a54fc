# machines: machine
# What scripts set in the environment reaches the start script.
import pathlib
import subprocess
import tempfile

directory = tempfile.mkdtemp()
image = pathlib.Path(directory, "disk.qcow2")

with subtest("a disk of one's own"):
    os.environ["NIX_DISK_IMAGE"] = str(image)
    machine.wait_for_unit("multi-user.target")
    assert image.exists()
    machine.succeed("echo was here > /root/note")
    machine.shutdown()
    assert "qcow2" in subprocess.check_output(["qemu-img", "info", str(image)], text=True)

with subtest("more devices and kernel parameters"):
    with open(f"{directory}/extra.img", "wb") as f:
        f.truncate(4 << 20)
    os.environ["QEMU_OPTS"] = (
        f"-drive if=none,id=extra,format=raw,file={directory}/extra.img "
        "-device virtio-blk-pci,drive=extra,serial=extra"
    )
    os.environ["QEMU_KERNEL_PARAMS"] = "some.parameter=1"
    machine.start()
    machine.wait_for_unit("multi-user.target")
    assert machine.succeed("cat /root/note") == "was here\n"
    machine.succeed("grep -w some.parameter=1 /proc/cmdline")
    machine.succeed("grep -l extra /sys/block/*/serial", "grep 4096 /proc/partitions")
    machine.shutdown()

with subtest("and without them"):
    for name in "QEMU_OPTS", "QEMU_KERNEL_PARAMS":
        del os.environ[name]
    machine.start()
    machine.fail("grep some.parameter /proc/cmdline")

machine.crash()
subprocess.run(["rm", "-r", directory], check=True)
