//go:build !cgo

package storedb

// Without cgo, go-sqlite3 compiles to a stub that fails when a program runs.
// This fails when it is built, with a message that says what to do.
var _ = storedb_needs_cgo_for_sqlite__build_with_CGO_ENABLED_1_and_a_C_compiler
