# NixOS module: VM tests are built by nix-vm-build-hook.
#
#   imports = [ vm-prebuild.nixosModules.build-hook ];
#   services.vm-build-hook = { enable = true; memory = "24G"; };
{
  # From a package set to the package of the tools.
  vm-prebuild,
}:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.vm-build-hook;
  inherit (lib) mkOption types;

  perValue = flag: values: lib.concatMap (value: [ flag value ]) values;
  flags = [
    "--store"
    cfg.directory
    "--nix"
    "${config.nix.package}/bin"
    "--tcg=${if cfg.emulate then "allow" else "deny"}"
  ]
  ++ lib.optionals (cfg.memory != null) [ "--memory" cfg.memory ]
  ++ lib.optionals (cfg.cores != null) [ "--cores" (toString cfg.cores) ]
  ++ lib.optionals (cfg.match != null) [ "--match" cfg.match ]
  ++ perValue "--feature" cfg.features
  ++ perValue "--sandbox-path" cfg.sandboxPaths
  ++ perValue "--cache" cfg.caches
  ++ perValue "--trusted-public-keys" cfg.trustedPublicKeys
  ++ perValue "--secret-key" cfg.secretKeyFiles;

  # Nix before 2.10 takes a program here, without arguments.
  hook = pkgs.writeShellScript "vm-build-hook" ''
    exec ${cfg.package}/bin/nix-vm-build-hook ${lib.escapeShellArgs flags} "$@"
  '';

  # These read build-hook from nix.conf and then take the default all the same
  # (github.com/NixOS/nix/pull/15083). What the daemon has in its environment counts.
  ignoresSetting =
    builtins.compareVersions config.nix.package.version "2.25" >= 0
    && builtins.compareVersions config.nix.package.version "2.34" < 0;
in
{
  options.services.vm-build-hook = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether VM tests are built by nix-vm-build-hook: also without KVM, if that is wanted, and never more at once than the machine can take.";
    };
    package = mkOption {
      type = types.package;
      default = vm-prebuild pkgs;
      description = "Package with bin/nix-vm-build-hook.";
    };
    directory = mkOption {
      type = types.str;
      default = "/var/lib/vm-prebuild/store";
      description = "Where tests are built, wait, and are logged. Only root may enter it. On the file system of /nix it serves best.";
    };
    emulate = mkOption {
      type = types.bool;
      default = false;
      description = "Whether tests that need KVM run without it where it does not work, many times slower.";
    };
    memory = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "24G";
      description = "Memory that the machines of all tests may have together. Without it, four fifths of what this machine has, or the daemon's control group.";
    };
    cores = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      description = "Virtual cores that they may have together. Without it, as many as the processor has, and a test with more runs alone.";
    };
    match = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "Regular expression for names of derivations that are taken, too.";
    };
    features = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Features that are offered to tests, beside nixos-test and kvm, and make a derivation one.";
    };
    sandboxPaths = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Directories and files that tests see in their sandbox, and cannot write to.";
    };
    caches = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Binary caches, by directory or URL, from which results of tests are placed instead of built.";
    };
    trustedPublicKeys = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Keys of which one must have signed what comes from a cache behind a URL.";
    };
    secretKeyFiles = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Files with keys that sign what is built, beside those of nix.settings.secret-key-files.";
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    nix.settings.build-hook = "${hook}";
    systemd.services.nix-daemon.environment = lib.optionalAttrs ignoresSetting {
      NIX_CONFIG = "build-hook = ${hook}";
    };
    systemd.tmpfiles.rules = [ "d ${cfg.directory} 0700 root root -" ];
  };
}
