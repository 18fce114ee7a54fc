# NAR hash of what `go mod vendor` makes; nix/update-vendor-hash.sh writes it.
"sha256-cNj+s85lVulC87p9L7YfGD7AxaSgxMci/yY9D3OPpZQ="
