# NAR hash of what `go mod vendor` makes; nix/update-vendor-hash.sh writes it.
"sha256-Tqnk0EUMFoUaYGBht4Wlk5rrB/F5ejZvrXrWEgfFUZk="
