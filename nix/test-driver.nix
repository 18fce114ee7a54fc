# nixos-test-driver: the tools, with what test scripts need at run time. Its
# arguments are those of nixpkgs' package of this name, for whose place
# overlay.nix has it; driver.nix wraps it for one test.
{
  lib,
  runCommand,
  makeWrapper,
  # The package of the tools.
  vm-prebuild,
  # What test scripts call on the host, and the fallback of the VLANs.
  coreutils,
  vde2,
  socat ? null,
  util-linux ? null,
  # The SSH backdoor of 26.05 and later.
  vhost-device-vsock ? null,
  tesseract ? null,
  tesseract4 ? tesseract,
  qemu_test,
  qemu_pkg ? qemu_test,
  # null where all scripts are Starlark.
  python3,
  # Whether the script's Python has a better prompt, for people.
  enablePrompt ? true,
  enableOCR ? false,
  enableNspawn ? false,
  extraPythonPackages ? _: [ ],
}:
let
  python = python3.withPackages (
    ps:
    extraPythonPackages ps
    ++ lib.optional (enablePrompt && ps ? ipython) ps.ipython
    ++ lib.optional (enablePrompt && ps ? ptpython) ps.ptpython
  );

  runtimePath = lib.makeBinPath (
    [
      coreutils
      qemu_pkg
      vde2
    ]
    ++ lib.filter (package: package != null) [
      socat
      util-linux
      vhost-device-vsock
    ]
    # Screens are read as English; all languages are gigabytes.
    ++ lib.optional (enableOCR && tesseract4 != null) (
      tesseract4.override { enableLanguages = [ "eng" ]; }
    )
  );
in
if enableNspawn then
  throw "vm-prebuild's nixos-test-driver has no backend for containers; make them nodes of the test instead"
else
  runCommand "nixos-test-driver"
    {
      nativeBuildInputs = [ makeWrapper ];
      passthru = lib.optionalAttrs (python3 != null) { inherit python; };
      meta = {
        description = "Runs one NixOS VM test";
        mainProgram = "nixos-test-driver";
        inherit (vm-prebuild.meta) license platforms;
      };
    }
    (
      ''
        mkdir -p $out/bin
        ln -s ${vm-prebuild}/bin/generate-driver-symbols $out/bin/
        makeWrapper ${vm-prebuild}/bin/nixos-test-driver $out/bin/nixos-test-driver \
          ${lib.optionalString (python3 != null) "--set NIXOS_TEST_PYTHON ${python}/bin/python3"} \
          --prefix PATH : ${lib.escapeShellArg runtimePath}
      ''
      + lib.optionalString (python3 != null) ''
        # nixpkgs' type check of scripts imports test_driver and the test's packages;
        # Python's setup hook, which this propagates, shows them to the type checker.
        mkdir -p $out/nix-support stubs
        echo ${toString ([ python3 ] ++ extraPythonPackages python3.pkgs)} >$out/nix-support/propagated-build-inputs
        ${vm-prebuild}/bin/nixos-test-run stubs stubs
        mkdir -p $out/${python3.sitePackages}
        cp -r stubs/test_driver $out/${python3.sitePackages}/
      ''
    )
