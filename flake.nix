{
  description = "NixOS VM tests without the waiting";

  inputs.nixpkgs.url = "github:nixos/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [ "x86_64-linux" ];
      forEachSystem = f: lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});

      # The tools as the user's flake pins them, also for tests that are
      # evaluated with another nixpkgs.
      tools = pkgs: self.packages.${pkgs.stdenv.hostPlatform.system}.vm-prebuild;
      testModule = import ./nix/module.nix { vm-prebuild = tools; };

      # The example is a flake of its own; here it runs against this tree.
      example = (import ./examples/cli/flake.nix).outputs {
        self = example;
        inherit nixpkgs;
        vm-prebuild = self;
      };
    in
    {
      lib = import ./nix/lib.nix {
        inherit testModule;
        vm-prebuild = tools;
      };

      testModules.default = testModule;

      packages = forEachSystem (
        pkgs:
        let
          vm-prebuild = pkgs.callPackage ./nix/package.nix { };
        in
        {
          default = vm-prebuild;
          inherit vm-prebuild;
          inherit (example.packages.${pkgs.stdenv.hostPlatform.system})
            run-vm-tests-with-cache
            vm-closure-info
            vm-store-db
            ;
        }
      );

      apps = forEachSystem (
        pkgs:
        lib.genAttrs [ "vm-prebuild" "nix-closure-import" "nixos-test-run" ] (name: {
          type = "app";
          program = "${tools pkgs}/bin/${name}";
        })
        // {
          inherit (example.apps.${pkgs.stdenv.hostPlatform.system}) run-vm-tests;
          default = {
            type = "app";
            program = "${tools pkgs}/bin/vm-prebuild";
          };
        }
      );

      checks = forEachSystem (
        pkgs: example.checks.${pkgs.stdenv.hostPlatform.system} // { package = tools pkgs; }
      );

      devShells = forEachSystem (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.git
            pkgs.go
            pkgs.jq
            pkgs.python3
            pkgs.qemu_test
            pkgs.vde2
          ]
          ++ lib.optional (pkgs ? golangci-lint) pkgs.golangci-lint;
        };
      });

      formatter = forEachSystem (
        pkgs:
        pkgs.writeShellApplication {
          name = "format";
          runtimeInputs = [
            pkgs.git
            pkgs.go
          ]
          ++ lib.optional (pkgs ? nixfmt) pkgs.nixfmt;
          # Go and, where nixpkgs has its formatter, Nix; the files that git knows.
          text = ''
            git ls-files -z -- '*.go' | xargs -0 gofmt -w
            if command -v nixfmt >/dev/null; then git ls-files -z -- '*.nix' | xargs -0 nixfmt; fi
          '';
        }
      );
    };
}
