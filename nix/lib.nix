# The functions that vm-prebuild offers to other flakes, `vm-prebuild.lib`, and
# default.nix to those who use none.
{
  # The test module, see module.nix.
  testModule,
  # From a package set to the package of the tools.
  vm-prebuild,
}:
let
  # Tests that run under our driver, by their names.
  withOurDriver =
    {
      pkgs,
      tests,
      modules ? [ ],
    }:
    let
      inherit (pkgs) lib;

      fromModule =
        name: module:
        pkgs.testers.runNixOSTest {
          imports = [
            testModule
            module
          ]
          ++ modules;
          name = lib.mkDefault name;
        };

      # To extend a test is to evaluate it once more.
      fromTest =
        name: test:
        if test ? config.prebuild && modules == [ ] then
          test
        else if test ? extend then
          test.extend { modules = [ testModule ] ++ modules; }
        else
          throw "vm-prebuild: the test ${name} cannot be extended, which takes nixpkgs 25.05 or later\nhint: pass its module instead, or import vm-prebuild.lib.module there";
    in
    lib.mapAttrs (
      name: test: if lib.isDerivation test then fromTest name test else fromModule name test
    ) tests;

  prebuild =
    pkgs: tests:
    import ./vm-prebuild.nix {
      inherit pkgs tests;
      vm-prebuild = vm-prebuild pkgs;
    };
in
{
  # The test module itself, for tests on their own:
  #   pkgs.testers.runNixOSTest { imports = [ vm-prebuild.lib.module ./test.nix ]; }
  module = testModule;

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
      # nixpkgs, 24.05 or later, for the system that the tests run on.
      pkgs,
      # Tests by their names. Each is the module of a test (a file, an attribute
      # set or a function), or a test that exists: what runNixOSTest returned.
      tests,
      # Modules that all tests import, too. For one, { globalTimeout = 600; }, or
      # { defaults.environment.systemPackages = [ … ]; } for all their machines.
      modules ? [ ],
    }:
    let
      checks = withOurDriver { inherit pkgs tests modules; };
      prebuilt = prebuild pkgs checks;
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

  # A derivation (or a VM test) with VM tests at hand for its builder, prebuilt:
  #   withPrebuiltVMs { inherit pkgs; tests.a = …; } (pkgs.runCommand "x" { } "run-vm-tests a")
  # The builder has run-vm-tests, which knows these tests ($VM_PREBUILD_MANIFEST),
  # and nix-closure-import with what makes a store of their closure:
  #   nix-closure-import exec --closure-info $VM_PREBUILD_CLOSURE_INFO \
  #     --db-image $VM_PREBUILD_STORE_DB -- COMMAND
  withPrebuiltVMs =
    {
      # As those of mkVmTests.
      pkgs,
      tests,
      modules ? [ ],
    }:
    let
      inherit (pkgs) lib;
      prebuilt = prebuild pkgs (withOurDriver { inherit pkgs tests modules; });
    in
    drv:
    let
      # Tests of nixpkgs 25.05 and later have no overrideAttrs that would last, and
      # older ones none at all.
      override =
        drv.overrideTestDerivation or drv.overrideAttrs
          or (throw "vm-prebuild: withPrebuiltVMs cannot change this derivation; of VM tests it takes those of nixpkgs 25.05 and later");
    in
    override (old: {
      nativeBuildInputs = (old.nativeBuildInputs or [ ]) ++ [ (vm-prebuild pkgs) ];
      # A builder that can run the tests.
      requiredSystemFeatures = lib.unique (
        (old.requiredSystemFeatures or [ ])
        ++ [
          "nixos-test"
          "kvm"
        ]
      );
      env = (old.env or { }) // {
        VM_PREBUILD_MANIFEST = "${prebuilt.manifest}";
        VM_PREBUILD_CLOSURE_INFO = "${prebuilt.closureInfo}";
        VM_PREBUILD_STORE_DB = "${prebuilt.storeDb}";
      };
    });

  # A setup hook: derivations that have it among their nativeBuildInputs build with
  # a Nix store of their own, inside the sandbox, that has the closure of rootPaths,
  # registered, and can be written to; nix finds it by its environment.
  #   pkgs.runCommand "uses-nix" {
  #     nativeBuildInputs = [ (setupNixInNix { inherit pkgs; rootPaths = [ pkgs.hello ]; }) ];
  #   } "nix-store --query --requisites ${pkgs.hello} >$out"
  setupNixInNix =
    {
      pkgs,
      # Store paths; that of a derivation (drvPath) brings the derivation itself.
      rootPaths,
      # The Nix on the builder's PATH, unless there is another.
      nix ? pkgs.nix,
    }:
    import ./setup-nix-in-nix.nix {
      inherit pkgs rootPaths nix;
      vm-prebuild = vm-prebuild pkgs;
    };
}
