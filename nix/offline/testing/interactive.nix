# The test as people try it by hand.
{
  config,
  hostPkgs,
  lib,
  moduleType,
  ...
}:
{
  options.interactive = lib.mkOption {
    type = moduleType;
    description = "The test once more, with what is set below this option besides.";
  };

  config = {
    interactive = {
      extraDriverArgs = [ "--interactive" ];
      qemu.package = hostPkgs.qemu;
    };
    passthru.driverInteractive = config.interactive.driver;
  };
}
