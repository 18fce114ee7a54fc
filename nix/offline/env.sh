# shellcheck shell=sh
# Source this to use Nix with nix/offline: it sets NIX_CONFIG and touches no file.
#   . nix/offline/env.sh
# Debian's /usr and the cache that setup.sh made become part of the sandbox.

offline_cache=${VM_PREBUILD_OFFLINE_CACHE:-/var/cache/vm-prebuild/offline}
offline_go=$(cd / && GOTOOLCHAIN=local go env GOROOT 2>/dev/null) || offline_go=
if [ -z "$offline_go" ]; then
    echo "nix/offline: no Go toolchain on PATH; its packages need one" >&2
fi

NIX_CONFIG="experimental-features = nix-command flakes
build-users-group =
sandbox = true
sandbox-paths =
extra-sandbox-paths = /usr /bin /sbin /lib /lib64 /etc/alternatives /etc/ssl /offline=$offline_cache${offline_go:+ /offline-go=$offline_go}
substituters =
system-features = nixos-test kvm benchmark big-parallel
warn-dirty = false
"
export NIX_CONFIG
unset offline_cache offline_go
