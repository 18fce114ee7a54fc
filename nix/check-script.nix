# Builder's commands that check a Python test script, found as $out/test-script:
# its syntax, its types and what a linter has to say, with the tools that the
# nixpkgs at hand uses for it: ty and ruff since 26.05, mypy and pyflakes before.
# A package set that has neither leaves the check out.
{
  config,
  lib,
  hostPkgs,
  options,
  # Names of the machines, and numbers of the VLANs.
  machineNames,
  vlans,
  # The package of test-driver.nix, for its Python.
  testDriver,
  # Package of the tools.
  tools,
}:
let
  inherit (testDriver) python;

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
  machines = lib.unique (
    map pythonName machineNames
    # The only machine of a test has this name, too.
    ++ lib.optional (builtins.length machineNames == 1) "machine"
  );
  vlanNames = map (n: "vlan${toString n}") vlans;

  symbols = machines ++ vlanNames;
  # They are imported: ty does not take a variable that is only declared for one.
  symbolTypes = hostPkgs.writeText "test_script_symbols.pyi" (
    "from test_driver.machine import QemuMachine\nfrom test_driver.vlan import VLan\n"
    + lib.concatMapStrings (name: "${name}: QemuMachine\n") machines
    + lib.concatMapStrings (name: "${name}: VLan\n") vlanNames
  );

  isNew = options ? driverConfigurationFile;
  typeChecker = if isNew && hostPkgs ? ty then "ty" else if hostPkgs ? mypy then "mypy" else null;
  linter =
    if isNew && hostPkgs ? ruff then
      "ruff"
    else if hostPkgs ? python3Packages.pyflakes then
      "pyflakes"
    else
      null;

  # The command lines of ty and ruff still change. Exit code 1 is what they say of
  # the script; any other, that they could not be run as we do, fails no test.
  lenient = name: command: ''
    status=0
    ${command} || status=$?
    case $status in
    0) ;;
    1) exit 1 ;;
    *) echo "warning: ${name} ended with exit code $status; the script is not checked" >&2 ;;
    esac
  '';

  # Errors are to name the script's own lines.
  typeCheck = {
    mypy = ''
      MYPYPATH=stubs ${hostPkgs.mypy}/bin/mypy --no-implicit-optional --pretty --no-color-output \
        --python-executable ${python}/bin/python3 --cache-dir=/dev/null withTypes.py |
        awk -v before="$before" -F : '$1 == "withTypes.py" { sub($1 ":" $2, "test-script:" $2 - before) } { print }'
    '';
    ty = lenient "ty" "${hostPkgs.ty}/bin/ty check --color never --extra-search-path stubs --python ${python} withTypes.py";
  };

  lint = {
    pyflakes = ''
      PYFLAKES_BUILTINS=${lib.concatStringsSep "," symbols},$(cat driver-symbols) \
        ${hostPkgs.python3Packages.pyflakes}/bin/pyflakes $out/test-script
    '';
    ruff = lenient "ruff" ''
      ${hostPkgs.ruff}/bin/ruff check --isolated --no-cache --select F \
        --config "builtins = [$(echo "${lib.concatStringsSep "," symbols},$(cat driver-symbols)" | sed 's/ //g; s/[^,]*/"&"/g')]" \
        $out/test-script'';
  };
in
''
  # A script that Python cannot parse fails here, not after the boot.
  ${python}/bin/python3 -c 'import ast, sys; ast.parse(open(sys.argv[1], encoding="utf-8").read(), "test-script")' $out/test-script
''
+ lib.optionalString (!config.skipTypeCheck && typeChecker != null) ''
  echo "Type check of the test script with ${typeChecker} (skipTypeCheck = true leaves it out)"
  mkdir stubs
  ${tools}/bin/nixos-test-run stubs stubs
  cp ${symbolTypes} stubs/test_script_symbols.pyi
  cat stubs/test-script-prepend.py >withTypes.py
  ${lib.optionalString (symbols != [ ]) "echo 'from test_script_symbols import ${lib.concatStringsSep ", " symbols}' >>withTypes.py"}
  before=$(wc -l <withTypes.py)
  cat $out/test-script >>withTypes.py
  ${typeCheck.${typeChecker}}
''
+ lib.optionalString (!config.skipLint && linter != null) ''
  echo "Lint of the test script with ${linter} (skipLint = true leaves it out)"
  ${tools}/bin/generate-driver-symbols
  ${lint.${linter}}
''
