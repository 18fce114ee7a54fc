# machines: machine
# A guest without the shared directory: copies go another way.
import tempfile
from pathlib import Path

machine.wait_for_unit("multi-user.target")
machine.succeed("umount /tmp/shared && mount -t tmpfs -o ro tmpfs /tmp/shared")

with tempfile.TemporaryDirectory() as directory:
    source = Path(directory, "blob")
    source.write_bytes(os.urandom(2 << 20))
    machine.copy_from_host(str(source), "/tmp/blob")
    assert machine.succeed("stat -c %s /tmp/blob") == f"{2 << 20}\n"
    machine.copy_from_machine("/tmp/blob")
    assert Path(machine.out_dir, "blob").read_bytes() == source.read_bytes()
