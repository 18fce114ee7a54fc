# Copies of BENCH_COUNT MiB, with the shared directory and without.
import os
import time

size = int(os.environ["BENCH_COUNT"]) << 20
source = f"{machine.out_dir}/source"
with open(source, "wb") as f:
    f.write(os.urandom(size))
machine.wait_for_unit("multi-user.target")


def measured(name, f, *args):
    # What an earlier copy left to write is not this one's.
    machine.succeed("sync")
    begin = time.monotonic()
    f(*args)
    print("BENCH", name, time.monotonic() - begin, flush=True)


def same(name):
    with open(f"{machine.out_dir}/{name}", "rb") as a, open(source, "rb") as b:
        assert a.read() == b.read(), name
    os.unlink(f"{machine.out_dir}/{name}")


measured("copy-in-shared", machine.copy_from_host, source, "/root/shared")
measured("copy-out-shared", machine.copy_from_machine, "/root/shared")
same("shared")
machine.succeed("rm /root/shared")
measured("copy-in-shell", machine.copy_from_host_via_shell, source, "/root/shell")
if hasattr(machine, "copy_from_machine_via_shell"):
    measured("copy-out-shell", machine.copy_from_machine_via_shell, "/root/shell", size)
else:
    machine.succeed("umount /tmp/shared; mount -t tmpfs -o ro tmpfs /tmp/shared")
    measured("copy-out-shell", machine.copy_from_machine, "/root/shell")
same("shell")
