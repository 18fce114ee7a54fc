# Overlay that has every test of a package set run under nixos-test-run: it
# replaces nixos-test-driver, which nixpkgs' test framework takes from the package
# set since 26.05. Before that, and for what only a module can do (options below
# prebuild, Starlark), there is module.nix.
{
  # From a package set to the package of the tools.
  vm-prebuild,
}:
final: _: {
  nixos-test-driver = final.callPackage ./test-driver.nix { vm-prebuild = vm-prebuild final; };
}
