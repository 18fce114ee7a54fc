# Built by a Nix that runs in the builder of a derivation; see lib.nix.
{
  package,
  bash,
  busybox,
}:
derivation {
  name = "built-inside";
  system = builtins.currentSystem;
  builder = builtins.storePath bash + "/bin/bash";
  PATH = builtins.storePath busybox + "/bin";
  args = [
    "-c"
    "{ cat $package/dependency; echo built inside; } >$out"
  ];
  package = builtins.storePath package;
}
