out = machine.succeed("hostname")
assert "web" in out, f"wrong name: {out}"
