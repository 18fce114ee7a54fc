# machines: machine
# Output of every kind comes back as it is.
machine.wait_for_unit("multi-user.target")

with subtest("Unicode"):
    for text in "grüße", "日本語", "🐧 and 🦭", "a\u0301", "tab\there", "back\\slash 'single' \"double\" $HOME `id`":
        quoted = text.replace("'", "'\\''")
        got = machine.succeed(f"printf %s '{quoted}'")
        assert got == text, (got, text)

with subtest("what is not text"):
    out = machine.succeed(r"printf 'a\377\376b\000c'")
    assert out == "a\ufffd\ufffdb\x00c", repr(out)

with subtest("white space stays"):
    assert machine.succeed("true") == ""
    assert machine.succeed("echo") == "\n"
    assert machine.succeed(r"printf '\n\n  x  \n\n'") == "\n\n  x  \n\n"
    assert machine.succeed("printf 'no newline'") == "no newline"
    assert machine.succeed(r"printf 'dos\r\n'") == "dos\r\n"

with subtest("a lot of it"):
    for size in 4095, 4096, 4097, 1 << 20, 5_000_000:
        out = machine.succeed(f"head -c {size} /dev/zero | tr '\\0' x")
        assert len(out) == size and set(out) == {"x"}, (size, len(out))
    numbers = machine.succeed("seq 200000").split()
    assert numbers == [str(i) for i in range(1, 200001)]

with subtest("a long command"):
    text = "y" * 100_000
    assert machine.succeed(f"echo {text} | wc -c") == "100001\n"

with subtest("several lines, comments and here-documents"):
    out = machine.succeed("""
        # a comment
        for word in one two; do
            echo "$word"
        done
        cat <<EOF
three
EOF
    """)
    assert out == "one\ntwo\nthree\n", out

with subtest("standard error is not output"):
    assert machine.succeed("echo out; echo err >&2") == "out\n"
    assert machine.execute("echo both 2>&1 >&2") == (0, "both\n"), "both lead to standard output"
    assert machine.execute("echo none >&2") == (0, "")

with subtest("bash's options are those of nixpkgs"):
    machine.fail("false; true")
    machine.fail("false | true")
    machine.fail("echo $not_set")
    assert machine.succeed("echo $0 $#").split()[-1] == "0"
    assert machine.succeed("pwd; cd /; pwd") == "/tmp\n/\n"
    assert machine.succeed("pwd") == "/tmp\n", "each command begins anew"
