# Prebuilds an attribute set of tests: builds everything that runs before their
# first assertion, and runs none of them.
{
  pkgs,
  # The package of nix-closure-import.
  vm-prebuild,
  # Attribute set of tests, as runNixOSTest returns them.
  tests,
}:
let
  inherit (pkgs) lib;

  describe =
    test:
    let
      inherit (test) config;
      nodes = lib.attrValues config.nodes;
    in
    {
      driver = "${test.driver}/bin/nixos-test-driver";
      # Its name only: whoever has the manifest needs not have the derivation.
      derivation = builtins.unsafeDiscardStringContext test.drvPath;
      machines = lib.mapAttrsToList (name: node: {
        inherit name;
        memoryMiB = node.virtualisation.memorySize;
        inherit (node.virtualisation) cores;
      }) config.nodes;
      vlans = lib.unique (lib.concatMap (node: node.virtualisation.vlans) nodes);
      globalTimeoutSeconds = config.globalTimeout;
    };

  # Of the drivers of all tests.
  inherit
    (import ./registered-closure.nix {
      inherit pkgs vm-prebuild;
      rootPaths = map (test: test.driver) (lib.attrValues tests);
    })
    closureInfo
    storeDb
    ;
in
{
  inherit tests closureInfo storeDb;

  # What run-vm-tests reads; its schema is in testrun/suite.
  manifest = pkgs.writeText "manifest.json" (
    builtins.toJSON {
      version = 1;
      inherit (pkgs.stdenv.hostPlatform) system;
      closureInfo = "${closureInfo}";
      tests = lib.mapAttrs (_: describe) tests;
    }
  );
}
