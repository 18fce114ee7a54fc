# NAR hash of what `go mod vendor` makes; nix/update-vendor-hash.sh writes it.
"sha256-+bVasUXd4lI3hUB9WMgOZp69iHgBESm9lRBfFbw0s2o="
