package storedb

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What is wrong with the database of a store is found before anything is written
// to it.
func TestImportIntoBadDatabase(t *testing.T) {
	c := newTestClosure(t)
	other := &testClosure{root: filepath.Join(t.TempDir(), "other"), info: t.TempDir()}
	other.add(t, "/nix/store/77777777777777777777777777777777-before", "before")
	other.write(t)
	statement := func(statements string) func(t *testing.T, file string) {
		return func(t *testing.T, file string) {
			db, err := sql.Open("sqlite3", file)
			check(t, err)
			_, err = db.ExecContext(t.Context(), statements)
			check(t, errors.Join(err, db.Close()))
		}
	}
	tests := []struct {
		name  string
		spoil func(t *testing.T, file string)
		want  string // after the file's name
	}{
		{"cut off", func(t *testing.T, file string) { check(t, os.Truncate(file, 5000)) }, ": corrupt: database disk image is malformed"},
		{"overwritten", func(t *testing.T, file string) {
			check(t, os.WriteFile(file, []byte(strings.Repeat("nonsense", 1000)), 0o644))
		}, ": not an SQLite database"},
		{"empty", func(t *testing.T, file string) { check(t, os.Truncate(file, 0)) }, ": not the database of a Nix store: there is no "},
		{"no table", statement("drop table DerivationOutputs"), ": not the database of a Nix store: there is no DerivationOutputs."},
		{"other columns", statement("alter table ValidPaths rename column sigs to signatures"), ": not the database of a Nix store: there is no ValidPaths.sigs"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			_, err := Import(t.Context(), other.options(t, root))
			check(t, err)
			file := filepath.Join(root, databaseDir, databaseName)
			test.spoil(t, file)
			before := listing(t, root)
			for _, dryRun := range []bool{true, false} {
				options := c.options(t, root)
				options.DryRun = dryRun
				_, err = Import(t.Context(), options)
				if input := new(InputError); !errors.As(err, &input) || !strings.HasPrefix(err.Error(), file+test.want) {
					t.Errorf("err = %v, want %s%s", err, file, test.want)
				}
			}
			if diff := cmp.Diff(before, listing(t, root)); diff != "" {
				t.Errorf("the store has changed:\n%s", diff)
			}
		})
	}
}

// A database that somebody else keeps locked is waited for until a deadline.
func TestImportIntoLockedDatabase(t *testing.T) {
	c := newTestClosure(t)
	root := filepath.Join(t.TempDir(), "root")
	nix(t, "nix-store", "--store", root, "--init")
	before := listing(t, filepath.Join(root, storeDir))
	file := filepath.Join(root, databaseDir, databaseName)
	db, err := sql.Open("sqlite3", file+"?_txlock=immediate")
	check(t, err)
	defer db.Close()
	tx, err := db.Begin()
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err = Import(ctx, c.options(t, root))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), file+": locked by another process\nhint: ") {
		t.Errorf("err = %v", err)
	}
	check(t, tx.Rollback())
	if diff := cmp.Diff(before, listing(t, filepath.Join(root, storeDir))); diff != "" {
		t.Errorf("the store has changed:\n%s", diff)
	}
	if _, err := Import(t.Context(), c.options(t, root)); err != nil {
		t.Fatal(err)
	}
	verifyStore(t, root)
}

// A closure that was not read from a registration is checked before it is used.
func TestImportBadClosure(t *testing.T) {
	tests := []struct {
		name string
		info PathInfo
		want string
	}{
		{"empty", PathInfo{}, `"" is not in /nix/store`},
		{"dot dot", PathInfo{Path: pathA + "/../../../etc"}, "more than one component"},
		{"foreign", PathInfo{Path: "/gnu/store/00000000000000000000000000000000-a"}, "is not in /nix/store"},
		{"reference", PathInfo{Path: pathA, References: []string{"../x"}}, `reference "../x" is not in /nix/store`},
		{"deriver", PathInfo{Path: pathA, Deriver: pathB}, "does not end in .drv"},
		{"size", PathInfo{Path: pathA, NarSize: -1}, "narSize -1"},
		{"absurd size", PathInfo{Path: pathA, NarSize: 1 << 60}, "narSize 1152921504606846976"},
		{"signature", PathInfo{Path: pathA, Sigs: []string{"a:b c:d"}}, `signature "a:b c:d"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			_, err := Import(t.Context(), Options{Closure: &Closure{Name: "cache", Paths: []PathInfo{test.info}}, Store: root})
			if input := new(InputError); !errors.As(err, &input) || !strings.HasPrefix(err.Error(), "cache: ") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("err = %v, want one of cache with %q", err, test.want)
			}
			if _, err := os.Lstat(root); err == nil {
				t.Error("a store was made")
			}
		})
	}
}
