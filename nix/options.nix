# The options of a test that nixpkgs does not have.
{
  config,
  lib,
  options,
  ...
}:
let
  inherit (lib) mkOption types;
in
{
  options.prebuild = {
    scriptLanguage = mkOption {
      type = types.enum [
        "python"
        "starlark"
      ];
      default = "python";
      description = "What testScript is written in. A test in Starlark has no Python in its closure.";
    };

    backend = mkOption {
      type = types.enum [ "qemu" ];
      default = "qemu";
      description = "What runs the machines of the test.";
    };

    accel = mkOption {
      type = types.enum [
        "auto"
        "kvm"
        "tcg"
      ];
      # Since 26.05 a test can rule TCG out in nixpkgs' own words.
      default = if options ? qemu.forceAccel && config.qemu.forceAccel then "kvm" else "auto";
      description = ''
        Whether the machines run under KVM. "auto" finds out whether that works and takes TCG, which is many times
        slower, where it does not; "kvm" fails the test there; "tcg" never uses KVM, and the test runs on builders
        that do not offer the system feature kvm.
      '';
    };

    warm.enable = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether the machines are booted once, as derivations of their own, and every run of the test starts from what
        they were at their ready point. A change of the script alone boots nothing. Machines have their store from an
        image then (prebuild.storeImage). States of machines under KVM are for hosts with the same CPU; with
        prebuild.accel = "tcg" binary caches serve them to hosts whose CPU has the same clock. driverInteractive boots.
      '';
    };

    warm.readyPoint = mkOption {
      type = types.strMatching "shell|(unit|file|command):.+";
      default = "shell";
      example = "unit:multi-user.target";
      description = ''
        When a machine is saved: as soon as its root shell answers ("shell"), or when a unit is active ("unit:NAME"), a
        file exists ("file:PATH"), a command succeeds ("command:COMMAND").
      '';
    };

    report.html = mkOption {
      type = types.bool;
      default = false;
      description = "Whether a run leaves report.html, a page about the test, among its results.";
    };

    report.junit = mkOption {
      type = types.bool;
      default = false;
      description = "Whether a run leaves junit.xml among its results.";
    };

    report.keepOnFailure = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether the derivation of a test that fails is built all the same, with what the run left, for Hydra and other
        CI to show. Its file nix-support/failed, which holds the driver's exit code, has Hydra say that the test
        failed; everything else that builds the test has to look for that file.
      '';
    };
  };
}
