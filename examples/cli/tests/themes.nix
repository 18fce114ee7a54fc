{
  nodes.machine = {
    virtualisation.memorySize = 512;
  };

  testScript = ''
    start_all()
    machine.wait_for_unit("multi-user.target")

    themes = {
        "plain": ("", None),
        "ocean": ("~ ", 34),
        "forest": ("* ", 32),
        "ember": ("# ", 31),
    }

    with subtest("the list is complete and marks the theme in use"):
        listed = machine.succeed("banner --theme forest themes").splitlines()
        assert [line[2:] for line in listed] == list(themes), f"got {listed}"
        assert [line for line in listed if line.startswith("*")] == ["* forest"]

    for name, (prefix, colour) in themes.items():
        with subtest(f"theme {name}"):
            text = machine.succeed(f"banner --theme {name} print hello world")
            assert text == f"{prefix}hello world\n", f"got {text!r}"

            text = machine.succeed(f"banner --theme {name} --color always print hello")
            expected = f"{prefix}hello" if colour is None else f"\033[{colour}m{prefix}hello\033[0m"
            assert text == expected + "\n", f"got {text!r}"

    with subtest("a prefix of one's own replaces the theme's"):
        assert machine.succeed("banner --theme ocean --prefix '> ' print hello") == "> hello\n"
  '';
}
