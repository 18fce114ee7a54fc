# shellcheck shell=bash
# Setup hook: gives this builder a Nix store of its own, with a closure. The store is
# in the build directory, where it shares its files' data with the inputs if the
# file system can (reflinks), and goes when the build ends.
setupNixInNix() {
    local store=$NIX_BUILD_TOP/nix-in-nix
    @tools@/bin/nix-closure-import --closure-info @closureInfo@ --db-image @storeDb@ --store "$store" >&2 || return
    eval "$(@tools@/bin/nix-closure-import env --store "$store")"
    export PATH=$PATH:@nix@/bin
}

# `nix develop` sources this, too, and has a store.
if [ -z "${IN_NIX_SHELL-}" ]; then setupNixInNix || exit; fi
