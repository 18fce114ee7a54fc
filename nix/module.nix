# Module of a NixOS test: the test runs under nixos-test-run instead of
# nixpkgs' Python driver. It reads only options that every nixpkgs from 24.05
# on has, and asks before it reads a younger one.
#
#   pkgs.testers.runNixOSTest { imports = [ vm-prebuild.testModules.default ./test.nix ]; }
{
  # From the host's package set to the package of nixos-test-run.
  vm-prebuild,
}:
{
  imports = [
    (import ./driver.nix { inherit vm-prebuild; })
    ./run.nix
  ];
}
