# The `test` of a test: a derivation that runs the driver in the sandbox.
# A framework that has rawTestDerivationArg (nixpkgs 25.05 and later) makes that
# derivation itself, and lets users override it; it runs our driver as it is. Ours
# takes its place where an option below prebuild asks for what it cannot do.
{
  config,
  lib,
  hostPkgs,
  options,
  ...
}:
let
  cfg = config.prebuild;

  # Since 25.11.
  debugHook = options ? enableDebugHook && config.enableDebugHook;

  runDriver = lib.concatStringsSep " " (
    [ "${config.driver}/bin/nixos-test-driver -o $out" ]
    ++ lib.optional debugHook "--debug-hook=${hostPkgs.breakpointHook.attach}"
  );

  # Hydra reads what it shows of a build from hydra-build-products, and a failure
  # from failed.
  keepOnFailure = ''
    status=0
    ${runDriver} || status=$?
    mkdir -p $out/nix-support
    if [ "$status" != 0 ]; then
        echo "the test failed with exit code $status; prebuild.report.keepOnFailure keeps what it left" >&2
        echo "$status" >$out/nix-support/failed
    fi
    {
        for page in nixos-test-run-failure/report.html report.html; do
            if [ -e $out/$page ]; then echo "report testlog $(dirname $out/$page) report.html"; fi
        done
        if [ -e $out/junit.xml ]; then echo "file xml $out/junit.xml"; fi
        find $out -name '*.png' -printf 'file png "%p"\n' | sort
    } >$out/nix-support/hydra-build-products
  '';

  # For those who attach to a test that the debug hook holds.
  attachPackages = lib.genAttrs [ "inetutils" "openssh" "socat" ] (_: null);

  rawTestDerivationArg = _: {
    name = "vm-test-run-${config.name}";
    requiredSystemFeatures = import ./features.nix {
      inherit config lib options;
      inherit (hostPkgs.stdenv) hostPlatform;
    };
    nativeBuildInputs = lib.optionals debugHook (
      lib.attrValues (builtins.intersectAttrs attachPackages hostPkgs)
    );
    buildCommand = ''
      mkdir -p $out
      # The driver would write its log to the file of this name as XML, too.
      export LOGFILE=/dev/null
      ${lib.optionalString (debugHook && hostPkgs ? systemd) "ln -sf ${hostPkgs.systemd}/lib/systemd/ssh_config.d/20-systemd-ssh-proxy.conf ssh_config"}
      ${if cfg.report.keepOnFailure then keepOnFailure else runDriver}
    '';
    inherit (config) passthru meta;
  };
in
{
  config =
    if options ? rawTestDerivationArg then
      {
        # Before the framework's own, behind the user's mkForce.
        rawTestDerivationArg = lib.mkIf (cfg.report.keepOnFailure || cfg.accel == "tcg") (
          lib.mkOverride 90 rawTestDerivationArg
        );
      }
    else
      {
        # Attributes of passthru and meta cost no evaluation of the derivation.
        test = lib.mkForce (
          lib.lazyDerivation {
            derivation = hostPkgs.stdenv.mkDerivation rawTestDerivationArg;
            inherit (config) passthru meta;
          }
        );
      };
}
