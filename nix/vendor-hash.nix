# NAR hash of what `go mod vendor` makes; nix/update-vendor-hash.sh writes it.
"sha256-F1Pb3i8Od25b8ZQcKa7NJNMXzJesysgv87JRdVgQv6g="
