# machines: machine
# Programs and files of the host take part.
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

machine.wait_for_unit("multi-user.target")

with tempfile.TemporaryDirectory(prefix="test-") as directory:
    work = pathlib.Path(directory)

    with subtest("what the host makes, the guest gets"):
        made = subprocess.run(
            [sys.executable, "-c", "import json; print(json.dumps({'port': 8080}))"],
            check=True, capture_output=True, text=True,
        ).stdout
        (work / "settings.json").write_text(made)
        machine.copy_from_host(str(work / "settings.json"), "/etc/app/settings.json")
        assert json.loads(machine.succeed("cat /etc/app/settings.json")) == {"port": 8080}

    with subtest("what the guest makes, the host checks"):
        machine.succeed("mkdir -p /tmp/made && head -c 100000 /dev/urandom > /tmp/made/noise")
        machine.copy_from_machine("/tmp/made", "results")
        noise = pathlib.Path(machine.out_dir, "results", "made", "noise")
        digest = hashlib.sha256(noise.read_bytes()).hexdigest()
        assert machine.succeed("sha256sum /tmp/made/noise").startswith(digest)
        shutil.copy(noise, work)
        sums = subprocess.check_output(["sha256sum", "noise"], cwd=work, text=True)
        assert sums.startswith(digest), sums

    with subtest("a program of the host fails"):
        with t.assertRaises(subprocess.CalledProcessError):
            subprocess.run("echo to the log >&2; exit 3", shell=True, check=True)

with tempfile.NamedTemporaryFile("w", suffix=".sh") as script:
    script.write("#!/bin/sh\necho \"ran with $# arguments\"\n")
    script.flush()
    os.chmod(script.name, 0o755)
    machine.copy_from_host(script.name, "/tmp/script.sh")
assert machine.succeed("/tmp/script.sh a 'b c'") == "ran with 2 arguments\n"

background = subprocess.Popen(["sleep", "1"])
machine.succeed("true")
assert background.wait() == 0
