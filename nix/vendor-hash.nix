# NAR hash of what `go mod vendor` makes; nix/update-vendor-hash.sh writes it.
"sha256-0SqHces/qCGbBjh3dOh1Xkwsu5Yhl33phFGzH0/6Qqw="
