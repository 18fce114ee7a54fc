# The machines of a test.
{
  config,
  hostPkgs,
  lib,
  ...
}:
let
  inherit (lib) mkOption types;
  guests = import ../guest {
    inherit lib;
    pkgs = hostPkgs;
  };
  module =
    description:
    mkOption {
      type = types.deferredModule;
      default = { };
      inherit description;
    };
in
{
  options = {
    nodes = mkOption {
      type = types.attrsOf config.node.type;
      default = { };
      description = "The machines of the test that QEMU runs.";
    };
    containers = mkOption {
      type = types.attrsOf types.deferredModule;
      default = { };
      description = "Containers of the test: nothing here makes them, but a driver can say so.";
    };
    allMachines = mkOption {
      type = types.raw;
      readOnly = true;
      default =
        lib.throwIfNot (builtins.intersectAttrs config.nodes config.containers == { })
          "these names are those of nodes and of containers: ${
            builtins.concatStringsSep ", " (builtins.attrNames (builtins.intersectAttrs config.nodes config.containers))
          }"
          (config.nodes // config.containers);
      description = "Nodes and containers.";
    };
    defaults = module "Configuration that all machines import.";
    nodeDefaults = module "Configuration that all nodes import.";
    extraBaseModules = module "Configuration that all machines import; specialisations, which are not here, cannot leave it out.";
    extraBaseNodeModules = module "The same of all nodes.";

    node = {
      type = mkOption {
        type = types.raw;
        default = types.submoduleWith {
          modules = [
            ./node.nix
            config.defaults
            config.nodeDefaults
            config.extraBaseModules
            config.extraBaseNodeModules
          ];
          specialArgs = {
            pkgs = if config.node.pkgs == null then hostPkgs else config.node.pkgs;
            inherit guests;
            inherit (config) qemu;
            # Not the nodes themselves: their values may depend on it.
            allNodes = builtins.attrNames config.nodes;
            nodes = config.nodes;
          }
          // config.node.specialArgs;
        };
        description = "The type of a node.";
      };
      pkgs = mkOption {
        type = types.nullOr types.raw;
        default = null;
        description = "Packages of the nodes; null for those of the host.";
      };
      specialArgs = mkOption {
        type = types.lazyAttrsOf types.raw;
        default = { };
        description = "Arguments of the nodes' modules that imports may depend on.";
      };
    };

    sshBackdoor.enable = mkOption {
      type = types.bool;
      default = config.enableDebugHook;
      description = "Whether the driver lets SSH clients of the host into the nodes. The guests here have no SSH server.";
    };
  };

  config.passthru = {
    inherit (config) nodes containers;
  };
}
