# machines: machine
# Relative paths start where the script is at the moment.
import tempfile
from pathlib import Path

machine.wait_for_unit("multi-user.target")
here = os.getcwd()

with tempfile.TemporaryDirectory() as directory:
    os.chdir(directory)
    Path("tree/sub dir").mkdir(parents=True)
    Path("tree/sub dir/file").write_text("content\n")
    Path("tree/program").write_text("#!/bin/sh\necho it runs\n")
    Path("tree/program").chmod(0o755)

    machine.copy_from_host("tree", "/srv/copied")
    assert machine.succeed("cat '/srv/copied/sub dir/file'") == "content\n"
    assert machine.succeed("/srv/copied/program") == "it runs\n"
    machine.copy_from_host("tree/program", "/srv/program")
    machine.copy_from_host(Path("tree") / "program", Path("/srv/another"))
    machine.succeed("test -x /srv/program -a -x /srv/another")

    os.chdir("tree")
    machine.copy_from_host("../tree/program", "/srv/third")
    machine.screenshot("./picture.png")
    assert Path("picture.png").exists(), "a name with a slash is a path"
    os.chdir(here)

machine.copy_from_machine("/srv/copied")
assert Path(machine.out_dir, "copied/sub dir/file").read_text() == "content\n"
with t.assertRaises(Exception):
    machine.copy_from_host("tree", "/srv/no-longer")
