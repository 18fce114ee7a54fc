{
  description = "NixOS VM tests without the waiting";

  inputs.nixpkgs.url = "github:nixos/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forEachSystem = f: lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});

      # On macOS there is one package, which says why it cannot be built when
      # somebody builds or runs it. Were that an error of evaluation, it would hit
      # everybody who evaluates all systems, as `nix flake check` of Nix 2.8 does.
      needsLinux = "vm-prebuild runs on Linux, and so do its tests: build or run it there, or on macOS with a Linux builder, as .#packages.aarch64-linux.default";
      placeholder =
        system:
        derivation {
          inherit system;
          name = "vm-prebuild-needs-linux";
          builder = "/bin/sh";
          args = [
            "-c"
            "echo '${needsLinux}' >&2; exit 1"
          ];
        };
      darwinSystems = [
        "x86_64-darwin"
        "aarch64-darwin"
      ];
      forEachDarwin = f: lib.genAttrs darwinSystems (system: f (placeholder system));

      appsOf =
        package: names:
        lib.genAttrs names (name: {
          type = "app";
          program = "${package}/bin/${name}";
        });
      toolNames = [
        "vm-prebuild"
        "nix-closure-import"
        "nixos-test-run"
        "nix-vm-build-hook"
      ];

      # The tools as the user's flake pins them, also for tests that are
      # evaluated with another nixpkgs.
      tools =
        pkgs:
        let
          inherit (pkgs.stdenv.hostPlatform) system;
        in
        if pkgs.stdenv.hostPlatform.isLinux then
          self.packages.${system}.vm-prebuild
            or (throw "vm-prebuild: there is no package for ${system}; nix/package.nix may build there: see default.nix")
        else
          throw "${needsLinux} (it was asked for on ${system})";
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

      # Modules of tests, for their `imports`; the second name is where people look.
      testModules.default = testModule;
      nixosModules.test = testModule;

      # Module of a NixOS machine that builds tests, see docs/build-hook.md.
      nixosModules.build-hook = import ./nix/build-hook-module.nix { vm-prebuild = tools; };

      # All tests of a nixpkgs run under our driver.
      overlays.default = import ./nix/overlay.nix { vm-prebuild = tools; };

      templates.default = {
        path = ./templates/default;
        description = "A flake with a NixOS VM test that is prebuilt";
        welcomeText = ''
          In flake.nix, make `vm-prebuild.url` the URL that you got this template from.
          Then prebuild the test and run it, as often as you like:

              nix build .#run-vm-tests-with-cache
              result/bin/run-vm-tests
        '';
      };

      packages =
        forEachSystem (
          pkgs:
          let
            vm-prebuild = pkgs.callPackage ./nix/package.nix { };
          in
          {
            default = vm-prebuild;
            inherit vm-prebuild;
            # For machines without Nix: one file for each tool, no libraries.
            vm-prebuild-static = pkgs.pkgsStatic.callPackage ./nix/package.nix { };
            inherit (example.packages.${pkgs.stdenv.hostPlatform.system})
              run-vm-tests-with-cache
              run-vm-tests-warm
              vm-closure-info
              vm-store-db
              ;
          }
        )
        // forEachDarwin (package: {
          default = package;
          vm-prebuild = package;
          run-vm-tests-with-cache = package;
        });

      apps =
        forEachSystem (
          pkgs:
          let
            apps = appsOf (tools pkgs) toolNames;
          in
          apps
          // {
            inherit (example.apps.${pkgs.stdenv.hostPlatform.system}) run-vm-tests;
            default = apps.vm-prebuild;
          }
        )
        // forEachDarwin (
          package:
          appsOf package (
            toolNames
            ++ [
              "run-vm-tests"
              "default"
            ]
          )
        );

      checks =
        forEachSystem (
          pkgs: example.checks.${pkgs.stdenv.hostPlatform.system} // { package = tools pkgs; }
        )
        // forEachDarwin (package: {
          inherit package;
        });

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
          # `make build` links statically.
          buildInputs = lib.optional (pkgs ? glibc) pkgs.glibc.static;
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
