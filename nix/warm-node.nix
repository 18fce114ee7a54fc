# Module of a machine that is started from a saved state: warm-restored.target is
# started each time, for the services that want to know of it.
{ lib, options, ... }:
{
  # nix/offline has services only.
  systemd = lib.optionalAttrs (options ? systemd.targets) {
    targets.warm-restored.description = "Things to do after the start from a saved state";
  };
}
