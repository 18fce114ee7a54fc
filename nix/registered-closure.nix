# What nix-closure-import needs to give a store the closure of some store paths:
# their closureInfo, and the database of a store that has them.
{
  pkgs,
  # The package of nix-closure-import.
  vm-prebuild,
  # Store paths; that of a derivation (drvPath) brings the derivation itself.
  rootPaths,
}:
rec {
  # nixpkgs' closureInfo.
  closureInfo = pkgs.closureInfo { inherit rootPaths; };

  # For --db-image.
  storeDb =
    pkgs.runCommandLocal "store-db"
      {
        nativeBuildInputs = [ vm-prebuild ];
      }
      ''
        nix-closure-import db-image --closure-info ${closureInfo} -o $out
      '';
}
