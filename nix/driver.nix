# The `driver` of a test: a nixos-test-driver that needs no arguments.
{ vm-prebuild }:
{
  config,
  lib,
  hostPkgs,
  ...
}:
let
  tools = vm-prebuild hostPkgs;

  vlansOf =
    node:
    node.virtualisation.vlans
    ++ map (interface: interface.vlan) (lib.attrValues (node.virtualisation.interfaces or { }));
  vlans = lib.unique (lib.concatMap vlansOf (lib.attrValues config.nodes));

  testScript = hostPkgs.writeText "test-script" config.testScriptString;
  isStarlark = lib.elem "--language=starlark" config.extraDriverArgs;

  # Since 26.05 it is the driver that opens the SSH backdoor. Before, nixpkgs adds
  # to the guests' QEMU options, and says so in extraDriverArgs.
  driverBackdoor =
    (config.driverConfiguration.enable_ssh_backdoor or config.sshBackdoor.enable or false)
    && !lib.any (lib.hasPrefix "--dump-vsocks") config.extraDriverArgs;

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
    inherit vlans;
    global_timeout = config.globalTimeout;
    enable_ssh_backdoor = driverBackdoor;
    test_script = "${testScript}";
  };
  configurationFile = hostPkgs.writeText "driver-configuration.json" (builtins.toJSON configuration);

  # A prompt is for people: there, the script's Python comes with a better one.
  isInteractive = lib.any (arg: arg == "-I" || arg == "--interactive") config.extraDriverArgs;
  python = hostPkgs.python3.withPackages (
    ps:
    config.extraPythonPackages ps
    ++ lib.optional (isInteractive && ps ? ipython) ps.ipython
    ++ lib.optional (isInteractive && ps ? ptpython) ps.ptpython
  );

  # What test scripts call on the host, and the fallback of the VLANs.
  runtimePath = lib.makeBinPath (
    [
      hostPkgs.coreutils
      config.qemu.package
      hostPkgs.vde2
    ]
    ++ lib.optional (hostPkgs ? socat) hostPkgs.socat
    ++ lib.optional (hostPkgs ? util-linux) hostPkgs.util-linux
    ++ lib.optional (driverBackdoor && hostPkgs ? vhost-device-vsock) hostPkgs.vhost-device-vsock
    ++ lib.optional config.enableOCR (hostPkgs.tesseract4 or hostPkgs.tesseract)
  );

  checks = import ./check-script.nix {
    inherit
      config
      lib
      hostPkgs
      python
      tools
      vlans
      ;
  };
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
        ${lib.optionalString (!isStarlark) ''
          # A script that Python cannot parse fails here, not after the boot.
          ${python}/bin/python3 -c 'import ast, sys; ast.parse(open(sys.argv[1], encoding="utf-8").read(), "test-script")' $out/test-script
          ${checks}
        ''}
        makeWrapper ${tools}/bin/nixos-test-driver $out/bin/nixos-test-driver \
          ${lib.optionalString (!isStarlark) "--set NIXOS_TEST_PYTHON ${python}/bin/python3"} \
          --prefix PATH : ${lib.escapeShellArg runtimePath} \
          --add-flags "--config ${configurationFile}" \
          --add-flags "--log-level ${config.logLevel or "info"}" \
          ${lib.concatMapStringsSep " " (
            arg: "--add-flags ${lib.escapeShellArg arg}"
          ) config.extraDriverArgs}
      ''
  );
}
