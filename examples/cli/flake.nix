{
  description = "A command-line program whose NixOS VM tests are prebuilt";

  inputs = {
    nixpkgs.url = "github:nixos/nixpkgs/nixos-unstable";
    # In a repository of your own: the URL of vm-prebuild.
    vm-prebuild.url = "path:../..";
    vm-prebuild.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs =
    { nixpkgs, vm-prebuild, ... }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forEachSystem = f: nixpkgs.lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});

      banner = pkgs: pkgs.callPackage ./package.nix { };

      # { checks, packages, apps, … } of all tests below.
      vmTests =
        pkgs: modules:
        vm-prebuild.lib.mkVmTests {
          inherit pkgs modules;
          # Every file is a test as nixpkgs' manual describes it.
          tests =
            nixpkgs.lib.mapAttrs
              (_: file: {
                imports = [ file ];
                # What all nodes of all tests have.
                defaults.environment.systemPackages = [ (banner pkgs) ];
              })
              {
                vm-help = ./tests/help.nix;
                vm-config-operations = ./tests/config-operations.nix;
                vm-config-priority = ./tests/config-priority.nix;
                vm-themes = ./tests/themes.nix;
                vm-two-machines = ./tests/two-machines.nix;
              };
        };

      # The same tests, whose machines have booted already: once, when they are built.
      warm = {
        prebuild.warm.enable = true;
        prebuild.warm.readyPoint = "unit:multi-user.target";
      };
    in
    {
      packages = forEachSystem (
        pkgs:
        (vmTests pkgs [ ]).packages
        // {
          default = banner pkgs;
          run-vm-tests-warm = (vmTests pkgs [ warm ]).packages.run-vm-tests-with-cache;
        }
      );
      apps = forEachSystem (pkgs: (vmTests pkgs [ ]).apps);
      checks = forEachSystem (pkgs: (vmTests pkgs [ ]).checks);
    };
}
