# Builder's commands that check a Python test script, as nixpkgs does: mypy and
# pyflakes, unless the test skips them. A package set without one of the two
# leaves out its check. The commands find the script as $out/test-script.
{
  config,
  lib,
  hostPkgs,
  # The script's interpreter, with the packages that it imports.
  python,
  # Package of the tools.
  tools,
  # Numbers of the test's VLANs.
  vlans,
}:
let
  # The name of a machine in scripts: as in the driver, what Python does not
  # allow becomes "_".
  pythonName =
    name:
    lib.concatStrings (
      builtins.genList (
        i:
        let
          c = builtins.substring i 1 name;
          allowed = if i == 0 then "[A-Za-z_]" else "[A-Za-z0-9_]";
        in
        if builtins.match allowed c == null then "_" else c
      ) (builtins.stringLength name)
    );
  nodeNames = lib.attrNames config.nodes;
  machines = lib.unique (
    map pythonName nodeNames
    # The only machine of a test has this name, too.
    ++ lib.optional (builtins.length nodeNames == 1) "machine"
  );
  vlanNames = map (n: "vlan${toString n}") vlans;
in
lib.optionalString (!config.skipTypeCheck && hostPkgs ? mypy) ''
  echo "Type check of the test script (skipTypeCheck = true leaves it out)"
  mkdir stubs
  ${tools}/bin/nixos-test-run stubs stubs
  {
      cat stubs/test-script-prepend.py
      ${lib.concatMapStrings (name: "echo '${name}: QemuMachine'\n") machines}
      ${lib.concatMapStrings (name: "echo '${name}: VLan'\n") vlanNames}
      cat $out/test-script
  } >testScriptWithTypes
  MYPYPATH=stubs ${hostPkgs.mypy}/bin/mypy --no-implicit-optional --pretty --no-color-output \
    --python-executable ${python}/bin/python3 --cache-dir=/dev/null testScriptWithTypes
''
+ lib.optionalString (!config.skipLint && hostPkgs ? python3Packages.pyflakes) ''
  echo "Lint of the test script (skipLint = true leaves it out)"
  ${tools}/bin/generate-driver-symbols
  PYFLAKES_BUILTINS=${lib.concatStringsSep "," (machines ++ vlanNames)},$(cat driver-symbols) \
    ${hostPkgs.python3Packages.pyflakes}/bin/pyflakes $out/test-script
''
