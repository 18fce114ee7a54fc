# machines: keeper
# What cannot be saved or restored: an error that says so, and the machine goes on.
import tempfile


def refused(text, operation, *args):
    try:
        operation(*args)
    except Exception as error:
        assert text in str(error), error
    else:
        raise Exception(f"not refused: {text}")


def block(machine):
    with machine.rollback():
        raise Exception("the block has begun")


with tempfile.NamedTemporaryFile() as image:
    image.truncate(4 << 20)
    os.environ["QEMU_OPTS"] = (
        f"-drive if=none,id=extra,format=raw,file={image.name} "
        "-device virtio-blk-pci,drive=extra,serial=extra"
    )
    refused('there is no snapshot "x" of this run', keeper.restore, "x")
    keeper.wait_for_unit("multi-user.target")
    refused('there is no snapshot "x" of this run', keeper.restore, "x")
    refused("the name of a snapshot is empty", keeper.save, "")

    with subtest("a share that something uses"):
        keeper.succeed("cd /tmp/shared; { setsid sleep 1000 & } </dev/null >/dev/null 2>&1")
        refused("unmounting /tmp/shared, which is a share of the host's", keeper.save, "x")
        refused("unmounting /tmp/shared, which is a share of the host's", block, keeper)
        keeper.succeed("grep -q ' /tmp/xchg 9p ' /proc/mounts", "grep -q ' /tmp/shared 9p ' /proc/mounts")
        keeper.succeed("killall sleep")

    with subtest("a raw disk, once it has been written to"):
        keeper.save("before")
        disk = keeper.succeed("grep -l extra /sys/block/*/serial").split("/")[3]
        keeper.restore("before")
        keeper.succeed(f"echo written > /dev/{disk}; sync")
        text = f"it has written to the disk extra ({image.name}), whose format is raw"
        refused(text, keeper.save, "after")
        refused(text, keeper.restore, "before")
        refused(text, block, keeper)
        assert keeper.succeed(f"head -n 1 /dev/{disk}") == "written\n"
    keeper.crash()

del os.environ["QEMU_OPTS"]
with subtest("what was saved ends with the machine"):
    refused('there is no snapshot "before" of this run', keeper.restore, "before")
    keeper.start()
    keeper.succeed("true")
    refused('there is no snapshot "before" of this run', keeper.restore, "before")


def crashes():
    with keeper.rollback():
        keeper.crash()


refused("has ended in a block that was to be undone", crashes)
keeper.start()
with keeper.rollback():
    keeper.succeed("touch /run/x")
keeper.fail("test -e /run/x")
