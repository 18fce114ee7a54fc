# NAR hash of what `go mod vendor` makes; nix/update-vendor-hash.sh writes it.
"sha256-eIhjiug9dAAqTU+r57ooyUBQ3D9DOB6lklgM1H/sTxc="
