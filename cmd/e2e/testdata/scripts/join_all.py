# machines: alpha beta
# All machines turn themselves off, and the test waits for them.
start_all()
for m in machines:
    m.wait_for_unit("multi-user.target")
    m.execute("(sleep 1; poweroff) >/dev/null 2>&1 &")
join_all()
for m in machines:
    assert not m.is_up(), f"{m.name} is up"
    assert not m.booted
