# testers.runNixOSTest: nixpkgs' test framework, without its Python driver.
{ lib, pkgs }:
let
  evalTest =
    module:
    lib.evalModules {
      modules = [
        ./test.nix
        module
      ];
      specialArgs = {
        inherit pkgs;
        hostPkgs = pkgs;
      };
    };
in
{
  testers.runNixOSTest = module: (evalTest module).config.test;
}
