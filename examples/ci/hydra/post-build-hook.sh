#!/bin/sh
# Brings what has just been built into the binary cache from which builders and
# people fill their stores. On the machine of Hydra's queue runner, in nix.conf:
#   post-build-hook = /etc/nix/post-build-hook.sh
# Nix waits for it; only what the cache lacks is written.
set -eu
cache=/srv/vm-cache
secret_key=/etc/nix/vm-cache.secret # of nix-store --generate-binary-cache-key

# Nix 2.8 leaves it empty.
: "${OUT_PATHS:=$(nix-store --query --outputs "$DRV_PATH")}"
# shellcheck disable=SC2086 # paths with blanks between them
exec vm-prebuild export --to "$cache" --secret-key "$secret_key" $OUT_PATHS
