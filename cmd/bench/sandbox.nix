# A derivation whose inputs are all paths of a closure. Its builder measures
# SCRIPT, then runs CHECK, in the environment that clan-core's tests give Nix in
# a sandbox.
{ storePaths, script, check, path }:
let
  lines = builtins.filter builtins.isString (builtins.split "\n" (builtins.readFile storePaths));
  paths = builtins.filter (line: line != "") lines;
in
derivation {
  name = "bench";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  args = [
    "-euc"
    ''
      export HOME=$TMPDIR WORK=/bench SOURCE=/ TARGET=$TMPDIR/store INFO=/bench/info IMAGE=/bench/image
      export IN_NIX_SANDBOX=1 NIX_STATE_DIR=$TMPDIR/nix NIX_CONF_DIR=$TMPDIR/etc
      mkdir "$NIX_CONF_DIR"
      cp /bench/nix.conf "$NIX_CONF_DIR"
      bench sample sh -euc "$script" >"$out"
      sh -euc "$check" >&2
    ''
  ];
  PATH = path;
  inherit script check;
  closure = builtins.appendContext "" (
    builtins.listToAttrs (map (name: { inherit name; value.path = true; }) paths)
  );
}
