# The package set: nixpkgs' names on top of Debian's programs.
{
  system ? "x86_64-linux",
  # Whether what is built with Go needs no shared library.
  isStatic ? false,
  # Changes to it, as nixpkgs takes them: the first sees the set as it is here, and
  # each the result of all as `final`.
  overlays ? [ ],
  # nixpkgs' own lib can take the place of ours, to compare: derivations are the same.
  lib ? import ./lib,
}@args:
let
  stdenv = import ./stdenv { inherit lib system isStatic; };
  packages =
    pkgs:
    {
      inherit lib stdenv pkgs;
      inherit (stdenv) system;
      stdenvNoCC = stdenv;
      callPackage = lib.callPackageWith pkgs;
      # nixpkgs' ways to a changed package set.
      appendOverlays = more: import ./. (args // { overlays = overlays ++ more; });
      extend = overlay: pkgs.appendOverlays [ overlay ];
      pkgsStatic = import ./. (args // { isStatic = true; });
    }
    // import ./pkgs/debian.nix { inherit lib stdenv; }
    // import ./pkgs/build-support.nix { inherit lib stdenv pkgs; }
    // import ./pkgs/go.nix { inherit lib stdenv; }
    // import ./testing { inherit lib pkgs; };
  pkgs = builtins.foldl' (set: overlay: lib.extends overlay set) packages overlays pkgs;
in
pkgs
