# The machines that bench warm measures, as a JSON file: the start script of each.
# They are the two guests of nix/offline with their store from an image, as states
# want it, and both with other sizes of memory.
{
  # Sizes of memory, in MiB, as a JSON list.
  sizes ? "[]",
}:
let
  pkgs = import ../../../nix/offline { };
  inherit (pkgs) lib;
  sized =
    guest:
    lib.listToAttrs (
      map (size: {
        name = "${guest}${toString size}";
        value.virtualisation = {
          inherit guest;
          memorySize = size;
        };
      }) (builtins.fromJSON sizes)
    );
in
pkgs.testers.runNixOSTest (
  { config, ... }:
  {
    imports = [ ../../../nix/store.nix ];
    name = "warm";
    prebuild.storeImage = true;
    nodes =
      sized "mini"
      // sized "systemd"
      // {
        mini.virtualisation.memorySize = 512;
        systemd.virtualisation = {
          guest = "systemd";
          memorySize = 1024;
        };
      };
    testScript = "";
    # Not a test: its machines.
    result = pkgs.writeText "machines.json" (
      builtins.toJSON (
        lib.mapAttrs (
          _: node: "${node.system.build.vm}/bin/run-${node.system.name}-vm"
        ) config.nodes
      )
    );
  }
)
