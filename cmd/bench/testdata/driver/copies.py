# Copies of BENCH_COUNT MiB, with the shared directory and without.
import os
import time

size = int(os.environ["BENCH_COUNT"]) << 20
source = f"{machine.out_dir}/source"
with open(source, "wb") as f:
    f.write(os.urandom(size))
machine.wait_for_unit("multi-user.target")


def measured(name, f, *args, factor=1):
    # What an earlier copy left to write is not this one's.
    machine.succeed("sync")
    begin = time.monotonic()
    f(*args)
    print("BENCH", name, factor * (time.monotonic() - begin), flush=True)


def same(name):
    with open(f"{machine.out_dir}/{name}", "rb") as a, open(source, "rb") as b:
        assert a.read() == b.read(), name
    os.unlink(f"{machine.out_dir}/{name}")


measured("copy-in-shared", machine.copy_from_host, source, "/root/shared")
measured("copy-out-shared", machine.copy_from_machine, "/root/shared")
same("shared")
machine.succeed("rm /root/shared")
if hasattr(machine, "copy_from_machine_via_shell"):
    # In the same way a 32nd of it is copied; all would take half an hour.
    size //= 32
    with open(source, "r+b") as f:
        f.truncate(size)
    measured("copy-in-shell", machine.copy_from_host_via_shell, source, "/root/shell", factor=32)
    measured("copy-out-shell", machine.copy_from_machine_via_shell, "/root/shell", size, factor=32)
else:
    measured("copy-in-shell", machine.copy_from_host_via_shell, source, "/root/shell")
    machine.succeed("umount /tmp/shared; mount -t tmpfs -o ro tmpfs /tmp/shared")
    measured("copy-out-shell", machine.copy_from_machine, "/root/shell")
same("shell")
