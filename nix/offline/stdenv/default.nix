# mkDerivation on top of Debian's programs: /usr of the build machine is part
# of the sandbox (env.sh), so a builder finds the usual tools in /usr/bin.
{
  lib,
  system,
  isStatic,
}:
let
  # Attributes that tell Nix code something and are no part of the derivation.
  evaluationOnly = [
    "env"
    "meta"
    "passthru"
  ];

  setup = builtins.path {
    name = "stdenv";
    path = ./.;
    filter = path: _: baseNameOf path == "setup";
  };

  mkDerivation =
    argsOrFunction:
    let
      fn = if lib.isFunction argsOrFunction then argsOrFunction else _: argsOrFunction;
      attrs = fn (attrs // { finalPackage = package; });
      raw = derivation (
        removeAttrs attrs evaluationOnly
        // (attrs.env or { })
        // {
          inherit system;
          name = attrs.name or "${attrs.pname}-${attrs.version}";
          builder = attrs.builder or "/bin/bash";
          args = attrs.args or [
            "-e"
            ./builder.sh
          ];
          outputs = [ "out" ];
          # `nix develop` knows both the name and the file setup in it.
          stdenv = setup;
        }
      );
      package =
        raw
        // (attrs.passthru or { })
        // {
          meta = attrs.meta or { };
          passthru = attrs.passthru or { };
          inherit (attrs) pname version;
          overrideAttrs =
            change:
            let
              f = if builtins.isFunction change then change else _: change;
            in
            mkDerivation (
              finalAttrs:
              let
                old = fn finalAttrs;
                # Both `old: { }` and `final: old: { }` are in use.
                once = f old;
              in
              old // (if builtins.isFunction once then f finalAttrs old else once)
            );
        };
    in
    removeAttrs package (lib.optional (!(attrs ? pname)) "pname" ++ lib.optional (!(attrs ? version)) "version");
in
{
  inherit mkDerivation;
  inherit system;
  shell = "/bin/bash";
  hostPlatform = {
    inherit system;
    isLinux = lib.hasSuffix "-linux" system;
    isDarwin = lib.hasSuffix "-darwin" system;
    inherit isStatic;
    isx86_64 = system == "x86_64-linux";
    isAarch64 = system == "aarch64-linux";
  };
}
