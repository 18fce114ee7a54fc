{
  nodes.machine =
    { pkgs, ... }:
    {
      environment.systemPackages = [ (pkgs.writeShellScriptBin "hello" ''echo "Hello, ''${1-world}!"'') ];
    };

  testScript = ''
    machine.wait_for_unit("multi-user.target")

    with subtest("It greets whom it is told to"):
        t.assertEqual(machine.succeed("hello"), "Hello, world!\n")
        t.assertEqual(machine.succeed("hello Nix"), "Hello, Nix!\n")
  '';
}
