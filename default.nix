# vm-prebuild for those who use no flakes:
#
#   nix-build -A vm-prebuild
#
#   # In a file of tests:
#   let
#     pkgs = import <nixpkgs> { };
#     vm-prebuild = import ./vm-prebuild { inherit pkgs; };
#   in
#   vm-prebuild.lib.mkVmTests { inherit pkgs; tests.mine = ./mine.nix; }
{
  pkgs ? import <nixpkgs> { },
  # For the same system: the nixpkgs that builds the tools, which takes Go 1.26.
  toolsPkgs ? pkgs,
}:
let
  tools =
    pkgs:
    if pkgs.stdenv.hostPlatform.isLinux then
      toolsPkgs.callPackage ./nix/package.nix { }
    else
      throw "vm-prebuild runs on Linux, and so do its tests (it was asked for on ${pkgs.stdenv.hostPlatform.system})";
  testModule = import ./nix/module.nix { vm-prebuild = tools; };
in
{
  vm-prebuild = tools pkgs;
  vm-prebuild-static = toolsPkgs.pkgsStatic.callPackage ./nix/package.nix { };

  # See nix/lib.nix.
  lib = import ./nix/lib.nix {
    inherit testModule;
    vm-prebuild = tools;
  };
  testModules.default = testModule;
  nixosModules = {
    test = testModule;
    build-hook = import ./nix/build-hook-module.nix { vm-prebuild = tools; };
  };
  overlays.default = import ./nix/overlay.nix { vm-prebuild = tools; };
}
