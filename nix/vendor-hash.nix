# NAR hash of what `go mod vendor` makes; nix/update-vendor-hash.sh writes it.
"sha256-K1iZvp5ka9mvqVotddqS/sMpRIeQ1x6U2/wqUDEb2Nc="
