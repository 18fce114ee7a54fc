# The package set: nixpkgs' names on top of Debian's programs.
{
  system ? "x86_64-linux",
  # Whether what is built with Go needs no shared library.
  isStatic ? false,
}:
let
  lib = import ./lib;
  stdenv = import ./stdenv { inherit lib system isStatic; };
  pkgs =
    {
      inherit lib stdenv pkgs;
      inherit (stdenv) system;
      stdenvNoCC = stdenv;
      callPackage = lib.callPackageWith pkgs;
      pkgsStatic = import ./. {
        inherit system;
        isStatic = true;
      };
    }
    // import ./pkgs/debian.nix { inherit lib stdenv; }
    // import ./pkgs/build-support.nix { inherit lib stdenv pkgs; }
    // import ./pkgs/go.nix { inherit lib stdenv; }
    // import ./testing { inherit lib pkgs; };
in
pkgs
