# System features that a machine must offer to run the machines of a test.
{
  config,
  lib,
  options,
  hostPlatform,
}:
let
  # Since 26.05 an option says what builders must offer.
  ofTest =
    if options ? requiredFeatures then
      lib.attrNames (lib.filterAttrs (_: isRequired: isRequired) config.requiredFeatures)
    else
      [ "nixos-test" ]
      ++ lib.optional hostPlatform.isLinux "kvm"
      ++ lib.optional hostPlatform.isDarwin "apple-virt";
in
lib.filter (feature: feature != "kvm" || config.prebuild.accel != "tcg") ofTest
