# NAR hash of what `go mod vendor` makes; nix/update-vendor-hash.sh writes it.
"sha256-ihqCT0Q3xTEW7Wy2Ac5zTdBXcmRE8gTK0SUoTDJ97Ac="
