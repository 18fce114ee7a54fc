# NAR hash of what `go mod vendor` makes; nix/update-vendor-hash.sh writes it.
"sha256-2LZtuu4qLI2CfMi3yNu7pu1wXwnpja4KHOTU1FnSh2Y="
