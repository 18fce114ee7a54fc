{
  description = "A miniature nixpkgs made of Debian packages, to build and run VM tests without the real one";

  outputs =
    { self }:
    {
      lib = import ./lib;
      legacyPackages = {
        x86_64-linux = import ./. { };
        # To evaluate only: setup.sh fetches a kernel and programs for x86_64.
        aarch64-linux = import ./. { system = "aarch64-linux"; };
      };
    };
}
