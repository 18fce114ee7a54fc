# The options of a test.
{
  config,
  lib,
  hostPkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  guests = import ../guest {
    inherit lib;
    pkgs = hostPkgs;
  };
  nodeNames = builtins.attrNames config.nodes;
in
{
  options = {
    name = mkOption {
      type = types.str;
      description = "Name of the test.";
    };
    nodes = mkOption {
      type = types.attrsOf (
        types.submoduleWith {
          modules = [
            ./node.nix
            config.defaults
          ];
          specialArgs = {
            pkgs = hostPkgs;
            inherit guests;
            # Not the nodes themselves: their values may depend on it.
            allNodes = nodeNames;
            nodes = config.nodes;
          };
        }
      );
      default = { };
      description = "The machines of the test.";
    };
    defaults = mkOption {
      type = types.deferredModule;
      default = { };
      description = "Configuration that all nodes import.";
    };
    testScript = mkOption {
      type = types.either types.str (types.functionTo types.str);
      description = "The Python script, or a function from { nodes, ... } to it.";
    };
    testScriptString = mkOption {
      type = types.str;
      readOnly = true;
      description = "The script that the driver runs.";
    };
    globalTimeout = mkOption {
      type = types.int;
      default = 3600;
      description = "Seconds after which the whole test has failed.";
    };
    extraDriverArgs = mkOption {
      type = types.listOf types.str;
      default = [ ];
    };
    extraPythonPackages = mkOption {
      type = types.functionTo (types.listOf types.package);
      default = _: [ ];
    };
    enableOCR = mkOption {
      type = types.bool;
      default = false;
    };
    skipLint = mkOption {
      type = types.bool;
      default = false;
    };
    skipTypeCheck = mkOption {
      type = types.bool;
      default = false;
    };
    logLevel = mkOption {
      type = types.enum [
        "debug"
        "info"
        "warning"
        "error"
      ];
      default = "info";
    };
    hostPkgs = mkOption {
      type = types.raw;
      default = hostPkgs;
    };
    qemu.package = mkOption {
      type = types.package;
      default = hostPkgs.qemu_test;
    };
    meta = mkOption {
      type = types.lazyAttrsOf types.raw;
      default = { };
    };
    passthru = mkOption {
      type = types.lazyAttrsOf types.raw;
      default = { };
    };
    driver = mkOption {
      type = types.package;
      description = "Package with bin/nixos-test-driver. Nothing here defines it: the Python driver is no part of Debian.";
    };
    test = mkOption {
      type = types.package;
      description = "Derivation that runs the test. nix/run.nix defines it, next to the driver.";
    };
  };

  config = {
    testScriptString =
      if builtins.isFunction config.testScript then
        config.testScript { inherit (config) nodes; }
      else
        config.testScript;
    passthru = {
      inherit config;
      inherit (config) driver nodes;
    };
  };
}
