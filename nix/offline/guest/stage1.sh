#!/bin/busybox sh
# Stage 1, the initramfs's /init: loads drivers, puts the root file system and
# the host's store together, and hands over to the node's own init.
# The kernel command line names that (init=PATH) and the kind of root
# (offline.root=mini|systemd). When something fails PID 1 ends, the kernel
# panics, and QEMU exits: the driver sees a dead machine, not a silent one.
set -eu
export PATH=/bin
root=/mnt-root

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
# /dev/console is the screen, as with nixpkgs' kernel parameters; errors of this
# script belong where the driver sees them.
exec 3>&2 2>/dev/ttyS0

init= kind= screen=
for word in $(cat /proc/cmdline); do
    case $word in
    init=*) init=${word#init=} ;;
    offline.root=*) kind=${word#offline.root=} ;;
    offline.screen) screen=1 ;;
    esac
done

load() {
    # Once: a module that is there already cannot be inserted.
    [ -e "/modules/$1" ] || return 0
    while read -r module; do insmod "/modules/$module"; done <"/modules/$1"
    rm "/modules/$1"
}
load common
if [ -n "$screen" ]; then load screen; fi

# device SERIAL: the disk that the start script gave this serial.
device() {
    for d in /sys/block/vd*; do
        if [ "$(cat "$d/serial")" = "$1" ]; then echo "/dev/${d##*/}"; return; fi
    done
    echo "stage 1: no disk with serial $1" >&2
    return 1
}

# What the guest writes goes to the machine's disk image, and survives there;
# what it starts from is read-only below it.
case $kind in
mini) lower=/guest ;;
systemd)
    load systemd
    load store
    lower=/mnt-base
    mkdir -p $lower
    mount -t erofs -o ro "$(device base)" $lower
    ;;
*) echo "stage 1: unknown offline.root=$kind" >&2; exit 1 ;;
esac
mkdir -p /mnt-disk $root
mount -t ext4 "$(device root)" /mnt-disk
mkdir -p /mnt-disk/upper /mnt-disk/work
mount -t overlay -o "lowerdir=$lower,upperdir=/mnt-disk/upper,workdir=/mnt-disk/work" overlay $root

share() {
    mkdir -p "$root$2"
    mount -t 9p -o "trans=virtio,version=9p2000.L,msize=262144$3" "$1" "$root$2"
}
# Of the host, or a disk that has the closure of some paths.
if store=$(findfs LABEL=nix-store 2>/dev/null); then
    load store
    mkdir -p $root/nix/.ro-store
    mount -t erofs -o ro "$store" $root/nix/.ro-store
else
    share nix-store /nix/.ro-store ,cache=loose,ro
fi
mkdir -p $root/nix/.rw-store $root/nix/store
mount -t tmpfs -o mode=0755 tmpfs $root/nix/.rw-store
mkdir $root/nix/.rw-store/upper $root/nix/.rw-store/work
mount -t overlay -o "lowerdir=$root/nix/.ro-store,upperdir=$root/nix/.rw-store/upper,workdir=$root/nix/.rw-store/work" overlay $root/nix/store
share xchg /tmp/xchg ""
share shared /tmp/shared ""

for d in /proc /sys /dev; do
    mkdir -p $root$d
    mount --move $d $root$d
done
# The lower tree of mini is part of this file system, so it stays mounted below.
cd $root
mount --move . /
exec chroot . "$init"
