#!/bin/sh
# Puts the Nix and the QEMU of Debian 13 beside those of Debian 12, for tests that
# have to hold with both: DIR/bin/nix, nix-store, qemu-system-x86_64 and so on run
# them, as any user, without a chroot.
#   trixie.sh [DIR]
# It does nothing that is done already.
set -eu

dir=${1:-${VM_PREBUILD_TRIXIE:-/var/cache/vm-prebuild/trixie}}
suite=trixie
# Raise it when what is put there changes.
version=3

say() { echo "offline setup: $*" >&2; }

if [ "$(cat "$dir/stamp" 2>/dev/null || true)" = "$version" ]; then
    say "what tests need of $suite is in $dir"
    exit 0
fi

mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$work"' EXIT
new=$work/new
mkdir -p "$new/bin" "$work/apt/lists/partial" "$work/apt/archives/partial"

# apt finds out what these need, as on a machine where nothing is installed.
# debootstrap cannot: it knows no virtual packages. The packages are unpacked only,
# and the libraries called by their own loader, so that nothing has to be configured.
# They come from the mirror that this machine uses itself.
# shellcheck disable=SC2016 # $(SITE) is for apt-get
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' \
    "Codename: $(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)" | head -n 1)
: >"$work/apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/apt/sources.list"
cat >"$work/apt/apt.conf" <<APT
Dir::State::Lists "$work/apt/lists";
Dir::State::Status "$work/apt/status";
Dir::Cache "$work/apt";
Dir::Etc::SourceList "$work/apt/sources.list";
Dir::Etc::SourceParts "-";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
pkgCacheGen::Essential "none";
APT
say "fetching the Nix and the QEMU of $suite from $mirror"
{
    APT_CONFIG=$work/apt/apt.conf apt-get -q update
    APT_CONFIG=$work/apt/apt.conf apt-get -q -y --download-only install nix-bin qemu-system-x86
} >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    exit 3
}
for deb in "$work"/apt/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$new" \
        --exclude=./etc --exclude=./var --exclude=./usr/share/doc --exclude=./usr/share/icons --exclude=./usr/sbin \
        --exclude='*/perl*' --exclude='*/gconv' --exclude='*/dri'
    basename "$deb" .deb
done >"$new/packages"
# Nothing else is wanted, least of all what is setuid.
find "$new/usr/bin" ! -type d ! -name 'nix*' ! -name qemu-system-x86_64 -delete
find "$new/usr/share" -mindepth 1 -maxdepth 1 ! -name qemu ! -name seabios -exec rm -rf {} +
loader=$(cd "$new" && echo usr/lib/*/ld-linux*.so.*)
cat >"$new/bin/nix" <<RUN
#!/bin/sh
here=\$(dirname "\$0")/..
exec "\$here/$loader" --argv0 "\${0##*/}" --library-path "\$here/$(dirname "$loader")" "\$here/usr/bin/nix" "\$@"
RUN
chmod +x "$new/bin/nix"
for link in "$new"/usr/bin/nix-*; do
    ln -s nix "$new/bin/${link##*/}"
done
# Its parts and its firmware are where it was built to look.
cat >"$new/bin/qemu-system-x86_64" <<RUN
#!/bin/sh
here=\$(dirname "\$0")/..
lib=\$here/$(dirname "$loader")
export QEMU_MODULE_DIR="\$lib/qemu"
exec "\$here/$loader" --argv0 "\${0##*/}" --library-path "\$lib" "\$here/usr/bin/\${0##*/}" -L "\$here/usr/share/qemu" -L "\$here/usr/share/seabios" "\$@"
RUN
chmod +x "$new/bin/qemu-system-x86_64"
"$new/bin/nix" --version >&2
"$new/bin/qemu-system-x86_64" --version >&2

echo "$version" >"$new/stamp"
rm -rf "$dir"
mv "$new" "$dir"
chmod -R a+rX "$dir"
say "what tests need of $suite is in $dir ($(du -sh "$dir" | cut -f1))"
