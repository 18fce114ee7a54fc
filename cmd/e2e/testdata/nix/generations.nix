# One test as the test frameworks of nixpkgs' releases evaluate it, with our module:
# for each release the options that its framework has, as far as a driver can
# see them, and what it defines itself. nixpkgs is not at hand; the facts are from
# its nixos/lib/testing.
{
  # Directory of the static binaries.
  bin,
  # For the test that is run: Nix would not run the same one again.
  now,
  # Arguments of nix/offline.
  offline ? { },
}:
let
  pkgs = import ../../../../nix/offline offline;
  inherit (pkgs) lib;
  inherit (lib) mkOption types;
  testModule = import ../../../../nix/module.nix { vm-prebuild = _: import ./tools.nix bin; };

  option = type: default: mkOption { inherit type default; };
  needed = type: mkOption { inherit type; };

  # The modules that came with a release and are there since.
  frameworks = {
    "24.05" =
      {
        config,
        hostPkgs,
        moduleType,
        ...
      }:
      {
        options = {
          name = needed types.str;
          nodes = option (types.attrsOf types.raw) { };
          defaults = option types.deferredModule { };
          testScriptString = needed types.str;
          driver = needed types.package;
          test = needed types.package;
          interactive = needed moduleType;
          qemu.package = option types.package hostPkgs.qemu_test;
          globalTimeout = option types.int 3600;
          enableOCR = option types.bool false;
          extraPythonPackages = option (types.functionTo (types.listOf types.package)) (_: [ ]);
          extraDriverArgs = option (types.listOf types.str) [ ];
          skipLint = option types.bool false;
          skipTypeCheck = option types.bool false;
          passthru = option (types.lazyAttrsOf types.raw) { };
          meta = option (types.lazyAttrsOf types.raw) { };
        };
        config = {
          interactive.extraDriverArgs = [ "--interactive" ];
          interactive.qemu.package = hostPkgs.qemu;
          passthru = {
            inherit config;
            inherit (config) driver nodes;
            driverInteractive = config.interactive.driver;
          };
        };
      };
    "24.11" = { };
    "25.05" =
      { config, hostPkgs, ... }:
      {
        options = {
          rawTestDerivation = needed types.package;
          rawTestDerivationArg = needed (types.functionTo types.raw);
        };
        config = {
          rawTestDerivation = hostPkgs.stdenv.mkDerivation config.rawTestDerivationArg;
          rawTestDerivationArg = _: {
            name = "vm-test-run-${config.name}";
            buildCommand = "the framework's own";
          };
          test = lib.lazyDerivation {
            derivation = config.rawTestDerivation;
            inherit (config) passthru meta;
          };
        };
      };
    "25.11".options.enableDebugHook = option types.bool false;
    "26.05" =
      { config, hostPkgs, ... }:
      {
        options = {
          logLevel = option types.str "info";
          containers = option (types.attrsOf types.raw) { };
          driverConfiguration = needed types.raw;
          driverConfigurationFile = needed types.raw;
          pythonTestDriverPackage = option types.raw (throw "the Python driver is not asked for");
          requiredFeatures = option (types.attrsOf types.bool) { };
          # Now the driver has it.
          sshBackdoor.enable = option types.bool false;
        };
        config = {
          driverConfiguration = throw "driverConfiguration is internal to nixpkgs";
          driverConfigurationFile = throw "driverConfigurationFile is internal to nixpkgs";
          requiredFeatures = {
            kvm = true;
            nixos-test = true;
            uid-range = config.containers != { };
            big-parallel = true;
          };
        };
      };
    "26.11".options.qemu.forceAccel = option types.bool false;
  };
  # In 25.05 and 25.11 the guests' QEMU has the SSH backdoor, and the driver a flag.
  oldBackdoor =
    { config, ... }:
    {
      options.sshBackdoor = {
        enable = option types.bool false;
        vsockOffset = option types.int 2;
      };
      config.extraDriverArgs = lib.mkIf config.sshBackdoor.enable [
        "--dump-vsocks=${toString config.sshBackdoor.vsockOffset}"
      ];
    };

  releases = builtins.attrNames frameworks;
  isBefore = a: b: builtins.compareVersions a b < 0;

  evaluate =
    {
      hostPkgs ? pkgs,
    }:
    release: module:
    (lib.evalModules {
      modules =
        map (name: frameworks.${name}) (builtins.filter (name: !isBefore release name) releases)
        ++ lib.optional (!isBefore release "25.05" && isBefore release "26.05") oldBackdoor
        ++ [
          testModule
          module
        ];
      specialArgs = { inherit hostPkgs; };
    }).config;

  # An evaluated node as far as a driver can see it.
  node = name: virtualisation: {
    system.name = name;
    system.build.vm = pkgs.writeTextFile {
      name = "nixos-vm";
      destination = "/bin/run-${name}-vm";
      executable = true;
      text = "#!/bin/sh\n";
    };
    virtualisation = {
      interfaces = { };
    }
    // virtualisation;
  };
  test = {
    name = "golden";
    nodes = {
      # Its host name is another than the node's.
      server = node "web" {
        vlans = [ ];
        interfaces.enp1s0.vlan = 2;
      };
      client = node "client" {
        vlans = [
          1
          2
        ];
      };
    };
    testScriptString = "start_all()\nclient.succeed('true')\n";
    globalTimeout = 600;
    extraDriverArgs = [ "--global-timeout=500" ];
    meta.timeout = 600;
  };

  # Everything of a module that some release has an option for.
  asFarAsThere = release: {
    prebuild = {
      accel = "tcg";
      report = {
        html = true;
        junit = true;
        keepOnFailure = true;
      };
    };
    enableOCR = true;
    skipLint = true;
    skipTypeCheck = true;
  }
  // lib.optionalAttrs (!isBefore release "25.05") { sshBackdoor.enable = true; }
  // lib.optionalAttrs (!isBefore release "25.11") { enableDebugHook = true; }
  // lib.optionalAttrs (!isBefore release "26.05") { logLevel = "warning"; };

  environment = drv: builtins.removeAttrs drv.drvAttrs [ "stdenv" "system" "builder" "args" "outputs" ];
in
lib.genAttrs releases (
  release:
  let
    eval = evaluate { } release;
    plain = eval test;
    full = eval {
      imports = [
        test
        (asFarAsThere release)
      ];
    };
    warm = eval {
      imports = [ test ];
      prebuild.warm.enable = true;
      prebuild.warm.readyPoint = "unit:multi-user.target";
    };
    starlark = eval {
      imports = [ test ];
      testScriptString = lib.mkForce "client.succeed('true')\n";
      prebuild.scriptLanguage = "starlark";
    };
    # A nixpkgs with the checkers that it uses since 26.05. They are not Debian's.
    checked = evaluate {
      hostPkgs = pkgs // {
        ty = "/ty";
        ruff = "/ruff";
      };
    } release test;
  in
  {
    golden = {
      drivers = {
        plain = plain.driver;
        interactive = plain.interactive.driver;
        full = full.driver;
        starlark = starlark.driver;
      };
      environments = {
        driver = environment plain.driver;
        test = environment plain.test;
        testFull = environment full.test;
        driverWarm = environment warm.driver;
        stateWarm = environment warm.passthru.warmStates.server;
      }
      // lib.optionalAttrs (!isBefore release "26.05") { driverChecked = environment checked.driver; };
      passthru = builtins.attrNames plain.passthru;
      inherit (plain.driver) meta;
    };
  }
  # To be built, of a machine that boots.
  // lib.optionalAttrs (release == "24.05") {
    run =
      (eval {
        name = "old";
        nodes = (pkgs.testers.runNixOSTest {
          name = "machines";
          nodes.machine.virtualisation.memorySize = 256;
          testScript = "";
        }).nodes;
        testScriptString = "machine.succeed('true')  # ${now}\n";
        prebuild.report.html = true;
      }).test;
  }
  // lib.optionalAttrs (!isBefore release "26.05") {
    containers =
      (eval {
        imports = [ test ];
        containers.box = { };
      }).driver;
  }
  // lib.optionalAttrs (!isBefore release "26.11") {
    forced =
      (eval {
        imports = [ test ];
        qemu.forceAccel = true;
      }).prebuild.accel;
  }
)
