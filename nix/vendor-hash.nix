# NAR hash of what `go mod vendor` makes; nix/update-vendor-hash.sh writes it.
"sha256-vzQbkOjbZ6yXH3MHtTacrEz+U+x9KqL47pS1LmHp2K8="
