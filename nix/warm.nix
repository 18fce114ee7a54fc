# The state of one machine of a test at its ready point, packed: what a test starts
# from instead of booting. It depends on the machine alone, so a change of the test's
# script does not build it anew, and tests that have the same machine share it.
{
  config,
  lib,
  hostPkgs,
  options,
  # The package of vm-prebuild.
  tools,
  # The machine's name in scripts, start script, and numbers of its VLANs.
  name,
  startScript,
  vlans,
  # Whether the driver opens the SSH backdoor.
  backdoor,
}:
let
  cfg = config.prebuild;

  # What a driver is told of a test that has this machine, and does nothing.
  configuration = hostPkgs.writeText "machine-configuration.json" (
    builtins.toJSON {
      vms.${name} = {
        inherit name;
        start_script = startScript;
      };
      containers = { };
      inherit vlans;
      global_timeout = 0;
      enable_ssh_backdoor = backdoor;
      test_script = "";
    }
  );
in
hostPkgs.runCommand "vm-warm-${name}"
  (
    {
      nativeBuildInputs = [ tools ];
      requiredSystemFeatures = import ./features.nix {
        inherit config lib options;
        inherit (hostPkgs.stdenv) hostPlatform;
      };
    }
    # A guest that ran under KVM knows the CPU that it ran on: its state is of no use
    # on machines with another.
    // lib.optionalAttrs (cfg.accel != "tcg") {
      allowSubstitutes = false;
      preferLocalBuild = true;
    }
  )
  ''
    # A build's standard error is a terminal, and its log no place for a bar.
    export TERM=dumb
    vm-prebuild warm build --config ${configuration} --accel ${cfg.accel} \
      --warm-ready ${lib.escapeShellArg cfg.warm.readyPoint} --warm-dir "$NIX_BUILD_TOP/warm" --out $out
  ''
