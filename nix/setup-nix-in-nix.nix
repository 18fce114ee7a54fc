# A setup hook that gives a builder a Nix store with a closure; see lib.nix.
{
  pkgs,
  # The package of nix-closure-import.
  vm-prebuild,
  rootPaths,
  nix,
}:
let
  closure = import ./registered-closure.nix { inherit pkgs vm-prebuild rootPaths; };
in
pkgs.makeSetupHook {
  name = "setup-nix-in-nix";
  substitutions = {
    tools = vm-prebuild;
    inherit nix;
    inherit (closure) closureInfo storeDb;
  };
} ./setup-nix-in-nix.sh
