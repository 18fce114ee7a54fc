{
  description = "A miniature nixpkgs made of Debian packages, to build and run VM tests without the real one";

  outputs =
    { self }:
    {
      lib = import ./lib;
      legacyPackages.x86_64-linux = import ./. { };
    };
}
