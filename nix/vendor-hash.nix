# NAR hash of what `go mod vendor` makes; nix/update-vendor-hash.sh writes it.
"sha256-+Ew3KvE/lN2cMqkAxp/z5Opg+eemeTLCQdiGsDT2tiI="
