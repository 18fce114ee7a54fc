{
  description = "NixOS VM tests, prebuilt";

  inputs = {
    nixpkgs.url = "github:nixos/nixpkgs/nixos-unstable";
    # The URL that you got this template from.
    vm-prebuild.url = "github:OWNER/vm-prebuild";
    # One nixpkgs for all. Without this line the tools come from one of their own, which
    # an older nixpkgs than 26.05 needs: it has no Go 1.26 to build them.
    vm-prebuild.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs =
    { nixpkgs, vm-prebuild, ... }:
    let
      forEachSystem = nixpkgs.lib.genAttrs [
        "x86_64-linux"
        "aarch64-linux"
      ];

      vmTests =
        system:
        vm-prebuild.lib.mkVmTests {
          pkgs = nixpkgs.legacyPackages.${system};
          # Tests as nixpkgs' manual describes them.
          tests = {
            hello = ./tests/hello.nix;
          };
        };
    in
    {
      # nix flake check
      checks = forEachSystem (system: (vmTests system).checks);

      # nix build .#run-vm-tests-with-cache
      packages = forEachSystem (
        system:
        (vmTests system).packages
        # For CI machines without Nix, see vm-prebuild's examples/ci.
        // {
          inherit (vm-prebuild.packages.${system}) vm-prebuild-static;
        }
      );

      # nix run .#run-vm-tests
      apps = forEachSystem (system: (vmTests system).apps);
    };
}
