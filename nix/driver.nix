# The `driver` of a test: a nixos-test-driver that needs no arguments.
{ vm-prebuild }:
{
  config,
  lib,
  hostPkgs,
  options,
  ...
}:
let
  cfg = config.prebuild;
  tools = vm-prebuild hostPkgs;
  isPython = cfg.scriptLanguage == "python";

  vlansOf =
    node:
    node.virtualisation.vlans
    ++ map (interface: interface.vlan) (lib.attrValues (node.virtualisation.interfaces or { }));
  vlans = lib.unique (lib.concatMap vlansOf (lib.attrValues config.nodes));
  isInteractive = lib.any (arg: arg == "-I" || arg == "--interactive") config.extraDriverArgs;

  # Scripts know a machine by the name of its node since 26.05, and before by the
  # name of its system, which is what its start script is called after.
  nameOf = node: system: if options ? driverConfigurationFile then node else system.system.name;
  machineNames = lib.mapAttrsToList nameOf config.nodes;

  startScripts = {
    qemu = system: "${system.system.build.vm}/bin/run-${system.system.name}-vm";
  };

  testScript = hostPkgs.writeText (
    if isPython then "test-script" else "test-script.star"
  ) config.testScriptString;

  # Since 26.05 it is the driver that opens the SSH backdoor. Before, nixpkgs adds
  # to the guests' QEMU options, and says so in extraDriverArgs.
  driverBackdoor =
    (options ? sshBackdoor && config.sshBackdoor.enable)
    && !lib.any (lib.hasPrefix "--dump-vsocks") config.extraDriverArgs;

  # The driver's own configuration file has the same form as that of nixpkgs
  # 26.05, whatever the nixpkgs: the form there is internal and changes.
  configuration = {
    vms = lib.mapAttrs' (
      node: system:
      let
        name = nameOf node system;
      in
      lib.nameValuePair name {
        inherit name;
        start_script = startScripts.${cfg.backend} system;
      }
    ) config.nodes;
    containers =
      if config.containers or { } == { } then
        { }
      else
        throw ''
          test ${config.name}: vm-prebuild has no backend for containers, and the test has ${lib.concatStringsSep ", " (lib.attrNames config.containers)}
          hint: make them nodes, or leave vm-prebuild's module out of this test'';
    inherit vlans;
    global_timeout = config.globalTimeout;
    enable_ssh_backdoor = driverBackdoor;
    test_script = "${testScript}";
  };
  configurationFile = hostPkgs.writeText "driver-configuration.json" (builtins.toJSON configuration);

  # States of the machines, packed.
  warmStates = lib.mapAttrs (
    node: system:
    import ./warm.nix {
      inherit
        config
        lib
        hostPkgs
        options
        tools
        ;
      name = nameOf node system;
      startScript = startScripts.${cfg.backend} system;
      vlans = lib.unique (vlansOf system);
      backdoor = driverBackdoor;
    }
  ) config.nodes;
  # In the environment, where whoever runs the driver can have it otherwise. People
  # may want to see the machine boot, in a window.
  warmEnvironment = lib.optionals (cfg.warm.enable && !isInteractive && config.nodes != { }) [
    "--set-default NIXOS_TEST_WARM auto"
    "--set-default NIXOS_TEST_WARM_READY ${lib.escapeShellArg cfg.warm.readyPoint}"
    "--prefix NIXOS_TEST_WARM_FROM : ${lib.concatStringsSep ":" (lib.attrValues warmStates)}"
  ];

  testDriver = hostPkgs.callPackage ./test-driver.nix {
    vm-prebuild = tools;
    qemu_pkg = config.qemu.package;
    python3 = if isPython then hostPkgs.python3 else null;
    enablePrompt = isInteractive;
    inherit (config) enableOCR extraPythonPackages;
  };

  # nixpkgs' come last: of a flag that is given twice the last one counts.
  arguments = [
    "--config"
    "${configurationFile}"
    "--log-level"
    (config.logLevel or "info")
  ]
  ++ lib.optional (!isPython) "--language=starlark"
  ++ lib.optional (cfg.accel != "auto") "--accel=${cfg.accel}"
  ++ lib.optional cfg.report.html "--html=report.html"
  ++ lib.optional cfg.report.junit "--junit-xml=junit.xml"
  ++ config.extraDriverArgs;

  checks = import ./check-script.nix {
    inherit
      config
      lib
      hostPkgs
      machineNames
      options
      testDriver
      tools
      vlans
      ;
  };

  driver =
    hostPkgs.runCommand "nixos-test-driver-${config.name}"
      (
        {
          nativeBuildInputs = [ hostPkgs.makeWrapper ];
          preferLocalBuild = true;
          inherit (config) passthru;
          meta = config.meta // {
            mainProgram = "nixos-test-driver";
          };
        }
        # With another machine's driver would come states for that one's CPU.
        // lib.optionalAttrs (warmEnvironment != [ ] && cfg.accel != "tcg") { allowSubstitutes = false; }
      )
      ''
        mkdir -p $out/bin
        cp ${testScript} $out/test-script
        ${lib.optionalString isPython checks}
        makeWrapper ${testDriver}/bin/nixos-test-driver $out/bin/nixos-test-driver \
          ${lib.concatStringsSep " \\\n  " (
            warmEnvironment ++ map (arg: "--add-flags ${lib.escapeShellArg arg}") arguments
          )}
      '';
in
{
  config = {
    driver = lib.mkForce (lib.warnIf config.skipLint "Linting is disabled" driver);
    defaults = lib.mkIf cfg.warm.enable ./warm-node.nix;
    passthru = lib.optionalAttrs cfg.warm.enable { inherit warmStates; };
  };
}
