# machines: machine
# Files and trees, in and out.
import tempfile
from pathlib import Path

machine.wait_for_unit("multi-user.target")
with tempfile.TemporaryDirectory() as directory:
    tree = Path(directory, "tree")
    (tree / "empty").mkdir(parents=True)
    (tree / "name with spaces").write_text("spaces\n")
    (tree / "ünï").write_text("unicode\n")
    (tree / "run").write_text("#!/bin/sh\nexit 5\n")
    (tree / "run").chmod(0o755)
    (tree / "big").write_bytes(os.urandom(3 << 20))

    with subtest("a tree to the guest"):
        machine.copy_from_host(str(tree), "/data/deep/tree")
        assert machine.succeed("cat '/data/deep/tree/name with spaces' /data/deep/tree/ünï") == "spaces\nunicode\n"
        assert machine.execute("/data/deep/tree/run")[0] == 5
        assert machine.succeed("stat -c '%U %a' /data/deep/tree/run") == "root 755\n"

    with subtest("a file into a directory and over another"):
        machine.copy_from_host(str(tree / "run"), "/data/")
        machine.succeed("test -x /data/run")
        machine.copy_from_host(str(tree / "ünï"), "/data/run")
        assert machine.succeed("cat /data/run") == "unicode\n"

    with subtest("back again"):
        machine.copy_from_machine("/data/deep/tree", "back")
        back = Path(machine.out_dir, "back/tree")
        assert (back / "big").read_bytes() == (tree / "big").read_bytes()
        assert (back / "empty").is_dir() and os.access(back / "run", os.X_OK)
        machine.copy_from_machine("/data/deep/tree/ünï")
        assert Path(machine.out_dir, "ünï").read_text() == "unicode\n"

    with subtest("without the shared directory"):
        for size in 0, 1, 200_000, 1 << 20:
            blob = Path(directory, "blob")
            blob.write_bytes(os.urandom(size))
            machine.copy_from_host_via_shell(str(blob), f"/data/shell/{size}")
            machine.copy_from_machine(f"/data/shell/{size}")
            assert Path(machine.out_dir, str(size)).read_bytes() == blob.read_bytes(), size

with subtest("what does not exist"):
    for f in (
        lambda: machine.copy_from_host("/nonexistent/file", "/tmp/x"),
        lambda: machine.copy_from_machine("/nonexistent/file"),
    ):
        with t.assertRaises(Exception) as caught:
            f()
        assert "nonexistent" in str(caught.exception), caught.exception
