# The functions that vm-prebuild's flake offers to other flakes.
{
  # The test module, see module.nix.
  testModule,
  # From a package set to the package of the tools.
  vm-prebuild,
}:
{
  # Everything that a flake shows of its VM tests:
  #   { checks, packages, apps, prebuilt }
  # checks.<name>                     runs one test in the Nix sandbox
  # packages.run-vm-tests-with-cache  runs all of them, prebuilt
  # packages.vm-closure-info          closureInfo of all drivers
  # packages.vm-store-db              the database of a store that has that closure
  # apps.run-vm-tests                 for `nix run`
  # prebuilt                          see vm-prebuild.nix
  mkVmTests =
    {
      pkgs,
      # Attribute set of NixOS test modules (a file, an attribute set or a function each).
      tests,
    }:
    let
      checks = pkgs.lib.mapAttrs (
        name: module:
        pkgs.testers.runNixOSTest {
          imports = [
            testModule
            module
          ];
          name = pkgs.lib.mkDefault name;
        }
      ) tests;
      prebuilt = import ./vm-prebuild.nix {
        inherit pkgs;
        vm-prebuild = vm-prebuild pkgs;
        tests = checks;
      };
      runner = import ./run-vm-tests.nix {
        inherit pkgs prebuilt;
        vm-prebuild = vm-prebuild pkgs;
      };
    in
    {
      inherit checks prebuilt;
      packages = {
        run-vm-tests-with-cache = runner;
        vm-closure-info = prebuilt.closureInfo;
        vm-store-db = prebuilt.storeDb;
      };
      apps.run-vm-tests = {
        type = "app";
        program = "${runner}/bin/run-vm-tests";
      };
    };
}
