# A file system image (erofs) with the closure of some store paths: what nixpkgs'
# virtualisation.useNixStoreImage makes anew at each start of a machine, with the
# same label, made once. Several machines can have it at the same time, read-only,
# as the disk that they mount on /nix/.ro-store.
{
  hostPkgs,
  lib,
  # Name of the derivation, whose output is the image.
  name,
  # Store paths.
  roots,
}:
hostPkgs.runCommand name
  {
    # Otherwise the output would refer to all that is in it, and whoever has the
    # image would have to have the closure, too. Nix before 2.17 ignores this.
    __structuredAttrs = true;
    unsafeDiscardReferences.out = true;

    nativeBuildInputs = [
      hostPkgs.erofs-utils
      hostPkgs.gnutar
    ];
    closureInfo = hostPkgs.closureInfo { rootPaths = roots; };
    # A few gigabytes are not worth a way to another machine and back.
    preferLocalBuild = true;
  }
  ''
    # What differs from store to store must not show: the order of directories, and
    # hard links, which an optimised store has.
    set -o pipefail
    LC_ALL=C sort "$closureInfo/store-paths" |
      tar --create --absolute-names --verbatim-files-from --files-from - \
        --sort=name --hard-dereference --owner=0 --group=0 --numeric-owner --mtime=@1 \
        --transform ${lib.escapeShellArg "flags=rSh;s|^${builtins.storeDir}/||"} |
      mkfs.erofs --quiet --force-uid=0 --force-gid=0 \
        -L nix-store -U eb3f2a1c-6a55-4c1d-9c0e-7f0e5a1d2b64 -T 1 --tar=f "$out"
  ''
