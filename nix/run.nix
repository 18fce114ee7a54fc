# The `test` of a test: a derivation that runs the driver in the sandbox.
# A framework that has rawTestDerivationArg (nixpkgs 25.05 and later) makes that
# derivation itself, and lets users override it; it runs our driver as it is.
{
  config,
  lib,
  hostPkgs,
  options,
  ...
}:
let
  inherit (hostPkgs.stdenv) hostPlatform;

  rawTestDerivation = hostPkgs.stdenv.mkDerivation {
    name = "vm-test-run-${config.name}";
    requiredSystemFeatures = [
      "nixos-test"
    ]
    ++ lib.optional hostPlatform.isLinux "kvm"
    ++ lib.optional hostPlatform.isDarwin "apple-virt";
    buildCommand = ''
      mkdir -p $out
      # The driver would write its log to the file of this name as XML, too.
      export LOGFILE=/dev/null
      ${config.driver}/bin/nixos-test-driver -o $out
    '';
    inherit (config) passthru meta;
  };
in
{
  config = lib.optionalAttrs (!(options ? rawTestDerivationArg)) {
    # Attributes of passthru and meta cost no evaluation of the derivation.
    test = lib.mkForce (
      lib.lazyDerivation {
        derivation = rawTestDerivation;
        inherit (config) passthru meta;
      }
    );
  };
}
