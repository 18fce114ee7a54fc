# NAR hash of what `go mod vendor` makes; nix/update-vendor-hash.sh writes it.
"sha256-Fp7MZ3/nKnEqsZgNaawwILJRa6OXV9vZQqwDT4c6lTU="
