// Package storedb brings closures into a local Nix store: it places the files
// of the store paths and registers the paths in the store's SQLite database,
// without a Nix process. [Import] is the entry point; [ReadClosureInfo] reads
// what it imports.
//
// The input is what nixpkgs' closureInfo writes (pkgs/build-support/closure-info.nix):
// the file registration has the format that nix-store --load-db reads, and
// store-paths lists the paths. The destination is a store as nix --store ROOT
// understands it: files below ROOT/nix/store, state below ROOT/nix/var/nix, and
// a database of schema version 10, which Nix has used since 2.0
// (src/libstore/schema.sql). Any Nix from 2.8 on opens the result without
// migrating it.
package storedb
