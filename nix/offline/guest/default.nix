# What the guests of a test are made of: kernel and initramfs (shared by all),
# a base image for those that boot systemd, an empty disk, and for each node a
# "toplevel" (its configuration) and a start script.
{ lib, pkgs }:
let
  # Raised together with the contents of the cache: see setup.sh.
  cacheVersion = lib.removeSuffix "\n" (builtins.readFile ../cache-version);

  fromCache =
    name: attrs: script:
    pkgs.runCommand name (attrs // { inherit cacheVersion; }) ''
      if [ "$(cat /offline/stamp 2>/dev/null)" != "$cacheVersion" ]; then
          echo "the cache of nix/offline is missing or of another version than $cacheVersion; run nix/offline/setup.sh, then source env.sh" >&2
          exit 1
      fi
      ${script}
    '';

  # Debian compresses its kernel with xz; unpacking that in the guest takes
  # seconds without KVM. QEMU boots the unpacked ELF file through its PVH entry.
  kernel = fromCache "guest-kernel" { } ''
    mkdir $out
    python3 ${./unpack-kernel.py} /offline/vmlinuz $out/vmlinux
    cp /offline/kernel-release $out/release
  '';

  # In the order in which insmod wants them.
  modules = {
    common = [ "virtio_pci" "virtio_console" "virtio_net" "virtio_blk" "9pnet_virtio" "9p" "overlay" "crc32c_generic" "ext4" "pvpanic-mmio" "pvpanic-pci" ];
    store = [ "erofs" ];
    systemd = [ "autofs4" "unix_diag" ];
    # A kernel that no boot loader has started does not find the text mode of VGA.
    screen = [ "bochs" ];
  };

  # What a running guest finds in /lib/modules, for the kernel and modprobe to load
  # when something asks for it. Not all of Debian's: a guest has no such hardware.
  modulesOnDemand = [ "nft_ct" "nft_limit" "nft_log" "nft_reject_inet" "veth" "dummy" "sch_netem" ];

  # For builders: module_files NAME… prints the files of modules and of those they
  # need, in the order in which insmod wants them.
  moduleFiles = ''
    release=$(cat ${kernel}/release)
    module_files() {
        for module in "$@"; do
            modprobe -d /offline/modules -S "$release" --show-depends "$module"
        done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
    }
  '';
  # Checking signatures and reading type information (BTF) costs an emulated CPU
  # seconds.
  strip = "objcopy --strip-debug -R .BTF";

  kernelModules = fromCache "guest-kernel-modules" { } ''
    ${moduleFiles}
    tree=$out/lib/modules/$release
    mkdir -p $tree
    module_files ${lib.escapeShellArgs modulesOnDemand} | while read -r file; do ${strip} "$file" "$tree/$(basename "$file")"; done
    cp /offline/modules/lib/modules/$release/modules.{builtin,order} $tree/
    depmod -b $out "$release"
  '';

  miniRoot = pkgs.runCommand "guest-mini-root" { } ''
    mkdir -p $out/{bin,dev,etc,nix/store,proc,root,run,sys,tmp,usr,var/empty}
    ln -s bin $out/sbin
    ln -s ../bin $out/usr/bin
    ln -s ../bin $out/usr/sbin
    cp ${pkgs.busybox}/bin/busybox ${pkgs.bash}/bin/bash $out/bin/
    for applet in $($out/bin/busybox --list); do
        [ -e $out/bin/$applet ] || ln -s busybox $out/bin/$applet
    done
    rm $out/bin/nc
    for program in systemctl nc timeout; do install -m 0755 ${./mini}/$program $out/bin/; done
    for action in poweroff reboot halt; do
        rm $out/bin/$action
        # Nothing here needs an orderly end but the disk.
        printf '#!/bin/sh\nexec busybox %s -f\n' $action >$out/bin/$action
        chmod +x $out/bin/$action
    done
    install -m 0755 ${./mini/rc} $out/etc/mini-rc
    install -m 0644 ${./mini/inittab} $out/etc/inittab
    # A static busybox cannot read /etc/shadow. It looks for root by name to log it
    # in, without a password, and by number, where it overlooks entries with an
    # empty field.
    printf 'root:%s:0:0:root:/root:/bin/bash\n' "" x >$out/etc/passwd
    echo 'root:x:0:' >$out/etc/group
    echo 'hosts: files dns' >$out/etc/nsswitch.conf
    printf 'ID=mini\nNAME="mini (nix/offline)"\n' >$out/etc/os-release
  '';

  initrd = fromCache "guest-initrd" { } ''
    ${moduleFiles}
    mkdir -p tree/{dev,guest,proc,sys,modules} $out
    ${lib.concatStrings (
      lib.mapAttrsToList (group: names: ''
        module_files ${lib.escapeShellArgs names} | while read -r file; do
            name=$(basename "$file")
            if [ -e tree/modules/"$name" ]; then continue; fi
            ${strip} "$file" tree/modules/"$name"
            echo "$name" >>tree/modules/${group}
        done
      '') modules
    )}
    cp -r ${miniRoot}/. tree/guest/
    chmod -R u+w tree/guest
    ln -s guest/bin tree/bin
    install -m 0755 ${./stage1.sh} tree/init
    (cd tree && find . -print0 | sort -z | cpio -o -0 -H newc --quiet --reproducible -R 0:0) >$out/initrd
  '';

  systemdBase = fromCache "guest-systemd-base" { } ''
    mkdir $out
    cp --reflink=auto /offline/root.erofs $out/root.erofs
    cp /offline/packages $out/packages
  '';

  # The start script makes each machine's disk an overlay of this.
  emptyDisk =
    sizeMiB:
    pkgs.runCommand "guest-empty-disk" { } ''
      mkdir $out
      truncate -s ${toString sizeMiB}M disk.raw
      mkfs.ext4 -q -L nixos -U 00000000-0000-0000-0000-000000000001 -E lazy_itable_init=1,lazy_journal_init=1,hash_seed=00000000-0000-0000-0000-000000000002 disk.raw
      qemu-img convert -f raw -O qcow2 disk.raw $out/disk.qcow2
    '';

  backdoor = pkgs.runCommand "guest-backdoor" { } ''
    substitute ${./backdoor.sh} $out --subst-var-by bash ${pkgs.bash}
    chmod +x $out
  '';

  guests = {
    inherit
      kernel
      kernelModules
      initrd
      systemdBase
      emptyDisk
      backdoor
      ;
    toplevel = import ./toplevel.nix { inherit lib pkgs guests; };
    startScript = import ./start-script.nix { inherit lib pkgs guests; };
  };
in
guests
