{
  nodes.machine = {
    virtualisation.memorySize = 512;
  };

  testScript = ''
    start_all()
    machine.wait_for_unit("multi-user.target")

    with subtest("help names every command"):
        text = machine.succeed("banner --help")
        for command in ["print", "themes", "config list", "config get", "config set", "config unset"]:
            assert f"\n  {command}" in text, f"{command} is missing from the help:\n{text}"

    with subtest("all ways to ask for help agree"):
        assert text == machine.succeed("banner help") == machine.succeed("banner -h") == machine.succeed("banner")

    with subtest("wrong usage is an error with a reason"):
        for arguments, reason in [
            ("--colour always", "unknown option: --colour"),
            ("paint", "unknown command: paint"),
            ("--theme", "--theme needs a value"),
        ]:
            status, output = machine.execute(f"banner {arguments} 2>&1")
            assert status == 2, f"banner {arguments} exited with {status}"
            assert reason in output, f"banner {arguments} said: {output}"
  '';
}
