#!/bin/sh
# Writes nix/vendor-hash.nix after a change of the Go dependencies; with
# --check it only says, by its exit code, whether the file is right.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
# The source of the package, without tests, so without what only they import.
source=$(nix-instantiate --eval --read-write-mode --expr '"${import ./nix/source.nix}"' | tr -d '"')
cp -r "$source" "$work/source"
(cd "$work/source" && go mod vendor -o "$work/vendor")
hash=$(nix --extra-experimental-features nix-command hash path "$work/vendor")
if grep -qxF "\"$hash\"" nix/vendor-hash.nix; then
    exit 0
fi
if [ "${1-}" = --check ]; then
    echo "nix/vendor-hash.nix is out of date: the vendor directory has $hash" >&2
    echo "hint: run nix/update-vendor-hash.sh" >&2
    exit 1
fi
sed -i "s|^\".*\"\$|\"$hash\"|" nix/vendor-hash.nix
echo "nix/vendor-hash.nix: $hash" >&2
