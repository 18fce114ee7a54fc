# The `driver` of a test: a nixos-test-driver that needs no arguments.
{ vm-prebuild }:
{
  config,
  lib,
  hostPkgs,
  ...
}:
let
  vlansOf =
    node:
    node.virtualisation.vlans
    ++ map (interface: interface.vlan) (lib.attrValues (node.virtualisation.interfaces or { }));

  testScript = hostPkgs.writeText "test-script" config.testScriptString;

  # The driver's own configuration file has the same form as that of nixpkgs
  # 26.05, whatever the nixpkgs: the form there is internal and changes.
  configuration = {
    vms = lib.mapAttrs (name: node: {
      inherit name;
      start_script = "${node.system.build.vm}/bin/run-${node.system.name}-vm";
    }) config.nodes;
    containers =
      if config.containers or { } == { } then
        { }
      else
        throw "test ${config.name}: vm-prebuild has no backend for containers";
    vlans = lib.unique (lib.concatMap vlansOf (lib.attrValues config.nodes));
    global_timeout = config.globalTimeout;
    enable_ssh_backdoor = false;
    test_script = "${testScript}";
  };
  configurationFile = hostPkgs.writeText "driver-configuration.json" (builtins.toJSON configuration);

  python = hostPkgs.python3.withPackages config.extraPythonPackages;

  # What test scripts call on the host, and the fallback of the VLANs.
  runtimePath = lib.makeBinPath (
    [
      hostPkgs.coreutils
      config.qemu.package
      hostPkgs.vde2
    ]
    ++ lib.optionals config.enableOCR [
      hostPkgs.imagemagick_light
      hostPkgs.tesseract4
    ]
  );
in
{
  driver = lib.mkForce (
    hostPkgs.runCommand "nixos-test-driver-${config.name}"
      {
        nativeBuildInputs = [ hostPkgs.makeWrapper ];
        preferLocalBuild = true;
        inherit (config) passthru;
        meta = config.meta // {
          mainProgram = "nixos-test-driver";
        };
      }
      ''
        mkdir -p $out/bin
        cp ${testScript} $out/test-script
        # A script that Python cannot parse fails here, not after the boot.
        ${python}/bin/python3 -c 'import ast, sys; ast.parse(open(sys.argv[1], encoding="utf-8").read(), "test-script")' $out/test-script

        makeWrapper ${vm-prebuild hostPkgs}/bin/nixos-test-run $out/bin/nixos-test-driver \
          --set NIXOS_TEST_PYTHON ${python}/bin/python3 \
          --prefix PATH : ${lib.escapeShellArg runtimePath} \
          --add-flags "--config ${configurationFile}" \
          --add-flags "--log-level ${config.logLevel or "info"}" \
          ${lib.concatMapStringsSep " " (
            arg: "--add-flags ${lib.escapeShellArg arg}"
          ) config.extraDriverArgs}
      ''
  );
}
