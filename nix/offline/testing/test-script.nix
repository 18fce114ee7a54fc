# The name of a test, what is known of it, and its script.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
in
{
  options = {
    name = mkOption {
      type = types.str;
      description = "Name of the test.";
    };
    meta = mkOption {
      type = types.lazyAttrsOf types.raw;
      default = { };
      description = "nixpkgs' meta of the test's derivations.";
    };
    testScript = mkOption {
      type = types.either types.str (types.functionTo types.str);
      # Only the arguments that the function asks for.
      apply =
        script:
        if lib.isFunction script then
          args: script (builtins.intersectAttrs (lib.functionArgs script) args)
        else
          script;
      description = "The script, or a function from { nodes, containers, ... } to it.";
    };
    testScriptString = mkOption {
      type = types.str;
      readOnly = true;
      description = "The script that the driver runs.";
    };
  };

  config.testScriptString =
    if lib.isFunction config.testScript then
      config.testScript { inherit (config) nodes containers; }
    else
      config.testScript;
}
