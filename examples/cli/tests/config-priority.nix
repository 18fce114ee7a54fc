{
  nodes.machine = {
    virtualisation.memorySize = 512;
    environment.etc."banner.conf".text = ''
      theme=forest
    '';
  };

  testScript = ''
    start_all()
    machine.wait_for_unit("multi-user.target")

    flag = "--theme ember"
    environment = "BANNER_THEME=ocean"
    file = "BANNER_CONFIG=/etc/banner.conf"


    def theme(command):
        line = machine.succeed(f"{command} config list | grep ^theme=")
        return line.strip().removeprefix("theme=")


    with subtest("flag over environment over file over default"):
        assert theme(f"{file} {environment} banner {flag}") == "ember (flag)"
        assert theme(f"{file} {environment} banner") == "ocean (environment)"
        assert theme(f"{file} banner") == "forest (file)"
        assert theme("banner") == "plain (default)"

    with subtest("each source alone beats the default"):
        assert theme(f"banner {flag}") == "ember (flag)"
        assert theme(f"{environment} banner") == "ocean (environment)"

    with subtest("an empty value is a value"):
        output = machine.succeed(f"{file} BANNER_PREFIX= banner print hello")
        assert output == "hello\n", f"got {output!r}"

    with subtest("a wrong value is an error wherever it comes from"):
        machine.fail("banner --theme mud print hello")
        machine.fail("BANNER_THEME=mud banner print hello")
        machine.fail("echo theme=mud > /tmp/mud && BANNER_CONFIG=/tmp/mud banner print hello")
  '';
}
