{
  nodes.machine = {
    virtualisation.memorySize = 512;
  };

  testScript = ''
    start_all()
    machine.wait_for_unit("multi-user.target")

    with subtest("without a file all settings are defaults"):
        machine.fail("test -e /root/.config/banner/config")
        assert machine.succeed("banner config list").splitlines() == [
            "color=auto (default)",
            "prefix= (default)",
            "theme=plain (default)",
        ]

    with subtest("set and get"):
        machine.succeed("banner config set theme ocean")
        machine.succeed("banner config set prefix 'dear '")
        machine.wait_for_file("/root/.config/banner/config")
        assert machine.succeed("banner config get theme") == "ocean\n"
        assert machine.succeed("banner config get prefix") == "dear \n"

    with subtest("a second set replaces the first"):
        machine.succeed("banner config set theme ember")
        assert machine.succeed("banner config get theme") == "ember\n"
        assert machine.succeed("grep -c '^theme=' /root/.config/banner/config") == "1\n"

    with subtest("unset"):
        machine.succeed("banner config unset theme")
        assert machine.succeed("banner config get theme") == "plain\n"
        machine.fail("banner config unset theme")
        assert machine.succeed("banner config get prefix") == "dear \n"

    with subtest("a wrong key or value changes nothing"):
        before = machine.succeed("cat /root/.config/banner/config")
        machine.fail("banner config set colour always")
        machine.fail("banner config set color sometimes")
        machine.fail("banner config get colour")
        assert machine.succeed("cat /root/.config/banner/config") == before
  '';
}
