# run-<name>-vm, with the conventions of nixpkgs' start scripts: NIX_DISK_IMAGE,
# TMPDIR with USE_TMPDIR, SHARED_DIR, QEMU_NET_OPTS, QEMU_VDE_SOCKET_<vlan>,
# QEMU_KERNEL_PARAMS, NIXPKGS_QEMU_KERNEL_<name>, QEMU_OPTS and "$@".
{
  lib,
  pkgs,
  guests,
}:
{
  config,
  toplevel,
  vlans,
  nodeNumber,
}:
let
  name = config.system.name;
  inherit (config) virtualisation;
  accel = if virtualisation.qemu.forceAccel then "kvm" else "kvm:tcg";
  hex = n: lib.fixedWidthString 2 "0" (lib.toHexString n);
  kernelVariable = "NIXPKGS_QEMU_KERNEL_${builtins.replaceStrings [ "-" "." ] [ "_" "_" ] name}";

  # Without an option ROM the firmware has nothing to offer network boot with,
  # and loses no time on it.
  nics = [
    ''-netdev user,id=user.0,"$QEMU_NET_OPTS" -device virtio-net-pci,netdev=user.0,romfile=''
  ]
  ++ lib.imap1 (
    i: vlan:
    ''-netdev vde,id=vlan${toString i},sock="$QEMU_VDE_SOCKET_${toString vlan}" ''
    + "-device virtio-net-pci,netdev=vlan${toString i},mac=52:54:00:12:${hex vlan}:${hex nodeNumber},romfile="
  ) vlans;

  options = lib.mapAttrsToList (name: value: ",${name}=${value}");
  drives = lib.imap1 (
    i: drive:
    "-drive if=none,id=drive${toString i},file=${drive.file}${lib.concatStrings (options drive.driveExtraOpts)} "
    + "-device virtio-blk-pci,drive=drive${toString i}${lib.concatStrings (options drive.deviceExtraOpts)}"
  ) virtualisation.qemu.drives;

  # As nixpkgs' start scripts do: anew at every start.
  storeImage = ''
    echo "Creating Nix store image..."
    ${pkgs.gnutar}/bin/tar --create --absolute-names --verbatim-files-from \
        --transform 'flags=rSh;s|${builtins.storeDir}/||' \
        --files-from ${pkgs.closureInfo { rootPaths = virtualisation.additionalPaths; }}/store-paths |
        ${pkgs.erofs-utils}/bin/mkfs.erofs --quiet --force-uid=0 --force-gid=0 -L nix-store \
            -U eb176051-bd15-49b7-9e6b-462e0b467019 -T 0 --tar=f "$TMPDIR"/store.img
    echo "Created Nix store image."
  '';

  share = tag: path: ''-virtfs local,path=${path},security_model=none,mount_tag=${tag}'';
  arguments = [
    "-name ${name}"
    "-m ${toString virtualisation.memorySize}"
    "-smp ${toString virtualisation.cores}"
    "-device virtio-rng-pci"
  ]
  ++ nics
  ++ lib.optional virtualisation.mountHostNixStore (share "nix-store" builtins.storeDir)
  ++ [
    (share "shared" ''"''${SHARED_DIR:-$TMPDIR/xchg}"'')
    (share "xchg" ''"$TMPDIR"/xchg'')
  ]
  ++ drives
  ++ [
    "-kernel \${${kernelVariable}:-${guests.kernel}/vmlinux}"
    "-initrd ${guests.initrd}/initrd"
    ''-append "$(cat ${toplevel}/kernel-params) init=${toplevel}/init $QEMU_KERNEL_PARAMS"''
  ]
  ++ virtualisation.qemu.options;
in
pkgs.writeTextFile {
  name = "vm-${name}";
  destination = "/bin/run-${name}-vm";
  executable = true;
  text = ''
    #!${pkgs.runtimeShell}
    export PATH=${lib.makeBinPath [ pkgs.coreutils ]}''${PATH:+:}$PATH
    set -e

    NIX_DISK_IMAGE=$(readlink -f "''${NIX_DISK_IMAGE:-./${name}.qcow2}")
    if ! test -e "$NIX_DISK_IMAGE"; then
        ${virtualisation.qemu.package}/bin/qemu-img create -q -f qcow2 -F qcow2 \
            -b ${guests.emptyDisk virtualisation.diskSize}/disk.qcow2 "$NIX_DISK_IMAGE"
    fi
    if [ -z "$TMPDIR" ] || [ -z "$USE_TMPDIR" ]; then
        TMPDIR=$(mktemp -d -t nix-vm.XXXXXXXXXX)
    fi
    ${lib.optionalString virtualisation.useNixStoreImage storeImage}
    mkdir -p "$TMPDIR/xchg"
    cd "$TMPDIR"

    exec ${virtualisation.qemu.package}/bin/qemu-system-x86_64 -machine accel=${accel} -cpu max \
        ${builtins.concatStringsSep " \\\n    " arguments} \
        $QEMU_OPTS "$@"
  '';
  checkPhase = ''${pkgs.runtimeShell} -n "$target"'';
}
