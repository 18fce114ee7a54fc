#!/bin/sh
# Prepares a Debian 12 machine for nix/offline, as root: installs the Debian
# packages that its derivations use, fetches a newer Nix and QEMU for tests (trixie.sh), and
# fills a cache folder with a kernel and a small root file system for the guests. It
# does nothing that is done already.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${VM_PREBUILD_OFFLINE_CACHE:-/var/cache/vm-prebuild/offline}
# Part of the derivations that read the cache; raise it when the contents change.
version=$(cat "$here/cache-version")

# nix, the guests' tools, QEMU, what the builders call, what tests and benchmarks
# make file systems with, what the driver reads screens with, and what its tests
# check scripts, reports and captures with.
packages="nix-bin ca-certificates git
bash-static busybox-static
qemu-system-x86 qemu-utils vde2 python3 mypy pyflakes3
jq gcc libc6-dev cpio kmod binutils
debootstrap erofs-utils e2fsprogs btrfs-progs xfsprogs xz-utils
tcpdump tesseract-ocr ovmf swtpm chromium fonts-dejavu-core"

# In the guests that boot systemd, besides Debian's minimal set.
guest_packages=systemd-sysv,dbus,udev,kmod,iproute2,iputils-ping,netcat-openbsd,procps,nftables,libpam-systemd

say() { echo "offline setup: $*" >&2; }

if [ "$(id -u)" != 0 ]; then
    say "must run as root"
    exit 2
fi

if ! command -v go >/dev/null; then
    say "there is no Go toolchain on PATH, and Debian 12's is too old"
    say "hint: install the Go version that go.mod names, and put it on root's PATH"
    exit 3
fi

missing=
for p in $packages; do
    dpkg-query -W -f='${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"
done
if [ -n "$missing" ]; then
    say "installing$missing"
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >&2
fi

"$here/trixie.sh"

if [ "$(cat "$cache/stamp" 2>/dev/null || true)" = "$version" ]; then
    say "the cache $cache is complete"
    exit 0
fi

# A half-made cache never has the final name.
mkdir -p "$(dirname "$cache")"
work=$(mktemp -d "$cache.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/new"

say "fetching Debian's kernel"
[ -n "$missing" ] || apt-get update -qq
image=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
mkdir "$work/kernel"
(cd "$work/kernel" && apt-get -o APT::Sandbox::User=root download "$image" >&2 && dpkg-deb -x ./*.deb tree)
cp "$work"/kernel/tree/boot/vmlinuz-* "$work/new/vmlinuz"
mkdir -p "$work/new/modules/lib/modules"
mv "$work"/kernel/tree/lib/modules/* "$work/new/modules/lib/modules/"
release=$(ls "$work/new/modules/lib/modules")
echo "$release" >"$work/new/kernel-release"
depmod -b "$work/new/modules" "$release"

# The packages come from the mirror that this machine uses itself.
suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
# shellcheck disable=SC2016 # $(SITE) is for apt-get
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Codename: $suite" | head -n 1)
say "bootstrapping $suite from $mirror"
debootstrap --variant=minbase --include="$guest_packages" "$suite" "$work/root" "$mirror" >"$work/debootstrap.log" 2>&1 || {
    tail -n 20 "$work/debootstrap.log" >&2
    exit 3
}
{
    echo "$image"
    dpkg-query --root="$work/root" -W
} >"$work/new/packages"

# Guests have no use for these; every file less is a shorter boot and copy.
(cd "$work/root" && rm -rf usr/share/doc usr/share/man usr/share/info usr/share/locale usr/share/common-licenses \
    var/cache/apt var/lib/apt/lists usr/lib/udev/hwdb.bin usr/lib/udev/hwdb.d etc/hostname etc/resolv.conf etc/machine-id)
mkdir -p "$work/root/nix/store"
mkfs.erofs -d0 -T1 -U 00000000-0000-0000-0000-000000000000 "$work/new/root.erofs" "$work/root" >/dev/null

echo "$version" >"$work/new/stamp"
rm -rf "$cache"
mv "$work/new" "$cache"
chmod -R a+rX "$cache"
say "the cache $cache is ready ($(du -sh "$cache" | cut -f1))"
