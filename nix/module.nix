# Module of a NixOS test: the test runs under nixos-test-run instead of
# nixpkgs' Python driver. It reads only options that every nixpkgs from 24.05
# on has, and asks before it reads a younger one.
#
#   pkgs.testers.runNixOSTest { imports = [ vm-prebuild.testModules.default ./test.nix ]; }
#   someTest.extend { modules = [ vm-prebuild.testModules.default ]; }
{
  # From the host's package set to the package of nixos-test-run.
  vm-prebuild,
}:
{
  # A test that is extended may have it already.
  key = "vm-prebuild/nix/module.nix";
  imports = [
    ./options.nix
    (import ./driver.nix { inherit vm-prebuild; })
    ./run.nix
    ./store.nix
  ];
}
