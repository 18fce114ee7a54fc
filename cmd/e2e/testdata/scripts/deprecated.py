# machines: machine
# environment: BETA={beta}
# Names of earlier releases still work.
machine.wait_for_unit("multi-user.target")
assert isinstance(machine, Machine)

machine.succeed("echo copied > /tmp/file")
machine.copy_from_vm("/tmp/file")
assert open(f"{machine.out_dir}/file").read() == "copied\n"
machine.copy_from_vm("/tmp/file", "sub/dir")
assert os.path.exists(f"{machine.out_dir}/sub/dir/file")

kept = create_machine(os.environ["BETA"], name="kept", keep_vm_state=False)
assert not kept.booted

old = create_machine({"startCommand": os.environ["BETA"], "name": "old-style"})
assert old.name == "old-style"

retry(lambda last_try: True, timeout_seconds=1)


@polling_condition(seconds_interval=0.1)
def always():
    pass


with always:
    machine.sleep(secs=1)
    machine.succeed("true")
