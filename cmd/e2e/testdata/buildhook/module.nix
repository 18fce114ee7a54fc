# The NixOS module of the build hook, evaluated with the options of NixOS that it
# sets, and a Nix of a given version.
{
  root,
  version,
  tool,
}:
let
  pkgs = import (root + "/nix/offline") { };
  inherit (pkgs) lib;
  option = lib.mkOption { type = lib.types.anything; };
  package = pkgs.writeShellScriptBin "nix-vm-build-hook" ''exec ${tool} "$@"'';
  evaluated = lib.evalModules {
    specialArgs = { inherit pkgs; };
    modules = [
      (import (root + "/nix/build-hook-module.nix") { vm-prebuild = _: package; })
      {
        options.environment.systemPackages = option;
        options.nix.settings = option;
        options.nix.package = option;
        options.systemd.services.nix-daemon.environment = option;
        options.systemd.tmpfiles.rules = option;
        config.nix.package = {
          inherit version;
          outPath = "/nix-${version}";
        };
        config.services.vm-build-hook = {
          enable = true;
          directory = "/var/lib/hook";
          emulate = true;
          memory = "24G";
          cores = 8;
          match = "^it's a (test|check)$";
          features = [ "one" "two" ];
          sandboxPaths = [ "/usr" ];
          caches = [ "/var/cache/results" "https://cache" ];
          trustedPublicKeys = [ "test-1:7uMS8IIVyh4rn6IfXLojU+EJP3EsU6g1TxhO8zRWZRY=" ];
        };
      }
    ];
  };
in
{
  inherit (evaluated.config) nix systemd;
  hook = evaluated.config.nix.settings.build-hook;
}
