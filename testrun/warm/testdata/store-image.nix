# The start script of a machine whose store is an image that the script makes, as
# nixpkgs' do: the drive is not read-only.
let
  pkgs = import ../../../nix/offline { };
in
pkgs.testers.runNixOSTest (
  { config, ... }:
  {
    name = "store-image";
    nodes.machine.virtualisation.useNixStoreImage = true;
    testScript = "";
    # Not a test: its machine.
    result = config.nodes.machine.system.build.vm;
  }
)
