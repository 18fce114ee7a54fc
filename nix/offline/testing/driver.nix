# The driver of a test, as nixpkgs makes it since 26.05: of the package
# nixos-test-driver, which is not here. It is Python with packages that Debian does
# not have, so a test either imports a module that defines `driver`, or an overlay
# brings the package.
{
  config,
  hostPkgs,
  lib,
  ...
}:
let
  inherit (lib) mkOption types;

  testDriver = config.pythonTestDriverPackage.override {
    inherit (config) enableOCR extraPythonPackages;
    qemu_pkg = config.qemu.package;
    enableNspawn = config.containers != { };
  };

  machines = builtins.attrNames config.driverConfiguration.vms;
  names = machines ++ lib.optional (builtins.length machines == 1 && machines != [ "machine" ]) "machine";
  vlans = map (n: "vlan${toString n}") config.driverConfiguration.vlans;
in
{
  options = {
    pythonTestDriverPackage = mkOption {
      type = types.package;
      default =
        hostPkgs.nixos-test-driver
          or (throw "nix/offline has no nixos-test-driver: import testModules.default of vm-prebuild into the test, or take its overlay");
      readOnly = true;
      description = "The driver's package.";
    };
    driver = mkOption {
      type = types.package;
      description = "Package with bin/nixos-test-driver, which runs this test.";
    };
    hostPkgs = mkOption {
      type = types.raw;
      default = hostPkgs;
      description = "Packages of what runs outside the nodes.";
    };
    qemu.package = mkOption {
      type = types.package;
      default = hostPkgs.qemu_test;
      description = "What runs the nodes.";
    };
    qemu.forceAccel = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the nodes run under KVM or not at all.";
    };
    globalTimeout = mkOption {
      type = types.int;
      default = 3600;
      description = "Seconds after which the whole test has failed.";
    };
    enableOCR = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the script reads screens.";
    };
    extraPythonPackages = mkOption {
      type = types.functionTo (types.listOf types.package);
      default = _: [ ];
      description = "Python packages that the script imports.";
    };
    extraDriverArgs = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Arguments of the driver, before those of who starts it.";
    };
    skipLint = mkOption {
      type = types.bool;
      default = false;
      description = "Whether no linter looks at the script.";
    };
    skipTypeCheck = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the script's types are not checked.";
    };
    logLevel = mkOption {
      type = types.enum [
        "debug"
        "info"
        "warning"
        "error"
      ];
      default = "info";
      description = "Lowest level of messages that the driver shows.";
    };
    driverConfiguration = mkOption {
      type = types.raw;
      description = "What the driver is told about the test.";
    };
    driverConfigurationFile = mkOption {
      type = types.package;
      description = "The same as a JSON file.";
    };
  };

  config = {
    driverConfiguration = {
      vms = builtins.mapAttrs (name: node: {
        inherit name;
        start_script = "${node.system.build.vm}/bin/run-${node.system.name}-vm";
      }) config.nodes;
      containers = builtins.mapAttrs (name: _: { inherit name; }) config.containers;
      vlans = lib.unique (lib.concatMap (node: node.virtualisation.vlans) (builtins.attrValues config.nodes));
      global_timeout = config.globalTimeout;
      enable_ssh_backdoor = config.sshBackdoor.enable;
      test_script = "${hostPkgs.writeText "test-script" config.testScriptString}";
    };
    driverConfigurationFile = hostPkgs.writeText "driverConfiguration.json" (
      builtins.toJSON config.driverConfiguration
    );
    passthru.driver = config.driver;

    driver =
      hostPkgs.runCommand "nixos-test-driver-${config.name}"
        {
          nativeBuildInputs = [ hostPkgs.makeWrapper ] ++ lib.optional (!config.skipTypeCheck) hostPkgs.mypy;
          buildInputs = [ testDriver ];
          preferLocalBuild = true;
          inherit (config) passthru;
          meta = config.meta // {
            mainProgram = "nixos-test-driver";
          };
        }
        ''
          mkdir -p $out/bin
          cp ${config.driverConfiguration.test_script} $out/test-script
          ${lib.optionalString (!config.skipTypeCheck) ''
            {
                echo 'from test_driver.machine import NspawnMachine, QemuMachine'
                echo 'from test_driver.symbols import *'
                echo 'from test_driver.vlan import VLan'
                ${lib.concatMapStrings (name: "echo '${name}: QemuMachine'\n") names}
                ${lib.concatMapStrings (name: "echo '${name}: VLan'\n") vlans}
                cat $out/test-script
            } >testScriptWithTypes
            mypy --no-implicit-optional --pretty --no-color-output --cache-dir=/dev/null testScriptWithTypes
          ''}
          ${testDriver}/bin/generate-driver-symbols
          ${lib.optionalString (!config.skipLint) ''
            PYFLAKES_BUILTINS=${builtins.concatStringsSep "," (names ++ vlans)},$(cat driver-symbols) \
              ${hostPkgs.python3Packages.pyflakes}/bin/pyflakes $out/test-script
          ''}
          ln -s ${testDriver}/bin/nixos-test-driver $out/bin/nixos-test-driver
          wrapProgram $out/bin/nixos-test-driver \
            --add-flags "--config ${config.driverConfigurationFile}" \
            --add-flags "--log-level ${config.logLevel}" \
            ${lib.concatMapStringsSep " " (arg: "--add-flags ${lib.escapeShellArg arg}") config.extraDriverArgs}
        '';
  };
}
