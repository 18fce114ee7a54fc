# nixpkgs' pkgs.testers, and the test framework behind it: one file below for each
# of nixpkgs' nixos/lib/testing, and the same options in them.
{ lib, pkgs }:
let
  evalTest =
    module:
    lib.evalModules {
      modules = [
        ./driver.nix
        ./interactive.nix
        ./nodes.nix
        ./run.nix
        ./test-script.nix
        module
      ];
      # As nixpkgs' runNixOSTest, which sets hostPkgs and node.pkgs of this.
      specialArgs = {
        inherit pkgs;
        hostPkgs = pkgs;
      };
    };
in
{
  testers = {
    runNixOSTest = module: (evalTest module).config.result;

    # The derivation as one that is built when its builder fails: its output has the
    # log, testBuildFailure.log, the exit code, testBuildFailure.exit, and in result
    # what the builder left of its own.
    testBuildFailure =
      drv:
      drv.overrideAttrs {
        builder = "/bin/bash";
        args = [
          ./expect-failure.sh
          drv.drvAttrs.builder
        ]
        ++ drv.drvAttrs.args;
      };
  };
}
