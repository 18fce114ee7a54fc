# The package set: nixpkgs' names on top of Debian's programs.
{ }:
let
  lib = import ./lib;
  stdenv = import ./stdenv { inherit lib; };
  pkgs =
    {
      inherit lib stdenv pkgs;
      inherit (stdenv) system;
      stdenvNoCC = stdenv;
      callPackage = lib.callPackageWith pkgs;
    }
    // import ./pkgs/debian.nix { inherit lib stdenv; }
    // import ./pkgs/build-support.nix { inherit lib stdenv pkgs; }
    // import ./pkgs/go.nix { inherit lib stdenv; }
    // import ./testing { inherit lib pkgs; };
in
pkgs
