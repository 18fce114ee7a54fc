# prebuild.storeImage: the machines' /nix/store is one image of what they need, built
# once as a derivation and read by all of them, not the host's whole store.
# nixpkgs' virtualisation.useNixStoreImage makes an image for each machine at each
# start, and that is what it asks of start scripts, so this does without it.
{
  config,
  lib,
  hostPkgs,
  ...
}:
let
  # What a machine registers in its Nix database: by the same means as its start
  # script, which passes the path of the registration.
  registration = node: hostPkgs.closureInfo { rootPaths = node.virtualisation.additionalPaths; };

  image = import ./store-image.nix {
    inherit hostPkgs lib;
    # Not called after the test, as one with the same machines may have the same.
    name = "vm-store.img";
    roots =
      # What the script names, it may use in a machine. Not the script itself: its other
      # words are no reason to make the machines anew.
      [ (hostPkgs.writeStringReferencesToFile config.testScriptString) ]
      ++ lib.concatMap (node: node.virtualisation.additionalPaths ++ [ (registration node) ]) (
        lib.attrValues config.nodes
      );
  };
in
{
  options.prebuild.storeImage = lib.mkOption {
    type = lib.types.bool;
    # What has the host's store mounted cannot be saved.
    default = config.prebuild.warm.enable;
    description = ''
      Whether the machines have their Nix store from an image that is built once, with the test, and holds what the
      machines and the script refer to, instead of seeing the host's store. A change of any machine builds it anew.
      Machines with useBootLoader or useNixStoreImage keep the store that these give them.
    '';
  };

  config.defaults = lib.mkIf config.prebuild.storeImage (
    { config, ... }:
    # A root disk with a boot loader has the store, and is written to; the other asks for
    # an image of its own.
    lib.mkIf (!(config.virtualisation.useBootLoader or false) && !config.virtualisation.useNixStoreImage) {
      virtualisation = {
        mountHostNixStore = false;
        # As it is by default with the host's store.
        writableStore = lib.mkDefault true;
        # Behind all others, which keep their names: /dev/vda, /dev/vdb, …
        qemu.drives = lib.mkAfter [
          {
            name = "nix-store";
            file = "${image}";
            driveExtraOpts = {
              format = "raw";
              readonly = "on";
            };
          }
        ];
        fileSystems = {
          "/nix/.ro-store" = {
            device = "/dev/disk/by-label/nix-store";
            fsType = "erofs";
            options = [ "ro" ];
            neededForBoot = true;
          };
          "/nix/store" =
            if config.virtualisation.writableStore then
              {
                overlay = {
                  lowerdir = [ "/nix/.ro-store" ];
                  upperdir = "/nix/.rw-store/upper";
                  workdir = "/nix/.rw-store/work";
                };
              }
            else
              {
                device = "/nix/.ro-store";
                options = [ "bind" ];
              };
        };
      };
    }
  );
}
