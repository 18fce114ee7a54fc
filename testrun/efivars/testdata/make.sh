#!/bin/sh
# Makes the fixtures of this directory from Debian's package ovmf (2022.11):
# OVMF's empty store, and the same with the keys for Secure Boot enrolled by
# the firmware itself (that is how the package is built).
set -eu
cd "$(dirname "$0")"
for name in OVMF_VARS_4M OVMF_VARS_4M.snakeoil; do
	gzip --best --no-name <"/usr/share/OVMF/$name.fd" >"$name.fd.gz"
done
