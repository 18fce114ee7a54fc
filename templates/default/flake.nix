{
  description = "NixOS VM tests, prebuilt";

  inputs = {
    nixpkgs.url = "github:nixos/nixpkgs/nixos-unstable";
    # The URL that you got this template from.
    vm-prebuild.url = "github:OWNER/vm-prebuild";
    vm-prebuild.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs =
    { nixpkgs, vm-prebuild, ... }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      vmTests = nixpkgs.lib.genAttrs systems (
        system:
        vm-prebuild.lib.mkVmTests {
          pkgs = nixpkgs.legacyPackages.${system};
          # Any test as nixpkgs' manual describes it.
          tests = {
            hello = ./tests/hello.nix;
          };
        }
      );
      each = name: nixpkgs.lib.mapAttrs (_: tests: tests.${name}) vmTests;
    in
    {
      checks = each "checks"; # nix flake check
      packages = each "packages"; # nix build .#run-vm-tests-with-cache
      apps = each "apps"; # nix run .#run-vm-tests
    };
}
