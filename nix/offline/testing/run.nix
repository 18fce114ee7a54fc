# The derivations of a test.
{
  config,
  extendModules,
  hostPkgs,
  lib,
  options,
  ...
}:
let
  inherit (lib) mkOption types;
  inherit (hostPkgs.stdenv) hostPlatform;

  # A definition before which that of another evaluation has to stand back.
  override = option: change: lib.mkOverride (option.highestPrio - 1) (change option.value);
in
{
  options = {
    passthru = mkOption {
      type = types.lazyAttrsOf types.raw;
      default = { };
      description = "Attributes of the test and its driver that are no part of the derivations.";
    };
    enableDebugHook = mkOption {
      type = types.bool;
      default = false;
      description = "Whether a test that fails is held, for people to look around in it.";
    };
    requiredFeatures = mkOption {
      type = types.attrsOf types.bool;
      description = "System features that the machine must have which builds the test.";
    };
    rawTestDerivationArg = mkOption {
      type = types.functionTo types.raw;
      description = "Argument of mkDerivation for rawTestDerivation.";
    };
    rawTestDerivation = mkOption {
      type = types.package;
      description = "The test as a whole derivation, of which `test` shows a part.";
    };
    test = mkOption {
      type = types.package;
      description = "Derivation that runs the test when it is built.";
    };
    result = mkOption {
      type = types.raw;
      default = config.test;
      description = "What runNixOSTest returns.";
    };
  };

  config = {
    requiredFeatures = {
      nixos-test = lib.mkDefault true;
      kvm = lib.mkDefault hostPlatform.isLinux;
      uid-range = lib.mkDefault (config.containers != { });
    };
    rawTestDerivation = hostPkgs.stdenv.mkDerivation config.rawTestDerivationArg;
    rawTestDerivationArg = _: {
      name = "vm-test-run-${config.name}";
      requiredSystemFeatures = builtins.attrNames (lib.filterAttrs (_: isOn: isOn) config.requiredFeatures);
      buildCommand = ''
        mkdir -p $out
        export LOGFILE=/dev/null
        ${config.driver}/bin/nixos-test-driver -o $out ${
          lib.optionalString config.enableDebugHook "--debug-hook=${hostPkgs.breakpointHook.attach}"
        }
      '';
      inherit (config) passthru meta;
    };
    test = lib.lazyDerivation {
      derivation = config.rawTestDerivation;
      inherit (config) passthru meta;
    };

    passthru = {
      inherit config;
      inherit (config) test;
      extend =
        {
          modules,
          specialArgs ? { },
        }:
        (extendModules { inherit modules specialArgs; }).config.result;
      overrideTestDerivation =
        change:
        config.passthru.extend {
          modules = [
            { rawTestDerivationArg = override options.rawTestDerivationArg (lib.extends (lib.toExtension change)); }
          ];
        };
      extendNixOS =
        {
          module,
          specialArgs ? { },
        }:
        config.passthru.extend {
          modules = [
            {
              extraBaseModules = module;
              node.specialArgs = override options.node.specialArgs (_: specialArgs);
            }
          ];
        };
    };
  };
}
