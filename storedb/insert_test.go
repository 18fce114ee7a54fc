package storedb

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/nix-community/go-nix/pkg/nixbase32"
)

// fakeRegistration registers n paths that have no files, with seven references
// each on average, in the order that closureInfo writes them in.
func fakeRegistration(n int) []byte {
	random := rand.New(rand.NewPCG(1, 2))
	paths := make([]string, n)
	records := make([]string, n)
	for i := range paths {
		digest := sha256.Sum256(fmt.Append(nil, i))
		paths[i] = fmt.Sprintf("%s/%s-pkg-%d-1.0", StoreDir, nixbase32.EncodeToString(digest[:20]), i)
		var references []string
		for range random.IntN(min(i, 14) + 1) {
			references = append(references, paths[random.IntN(i+1)])
		}
		slices.Sort(references)
		references = slices.Compact(references)
		records[i] = fmt.Sprintf("%s\n%s\n%d\n\n%d\n", paths[i], Hash(digest), 500+random.IntN(5000000), len(references))
		for _, reference := range references {
			records[i] += reference + "\n"
		}
	}
	slices.Sort(records)
	var all bytes.Buffer
	for _, record := range records {
		all.WriteString(record)
	}
	return all.Bytes()
}

// A draft that fails when rows have been inserted already lets go of its file.
func TestDraftFails(t *testing.T) {
	infos, err := ParseRegistration(bytes.NewReader(fakeRegistration(3*batchRows)), "registration")
	check(t, err)
	g, err := newGraph(&Closure{Name: "registration", Paths: infos})
	check(t, err)
	file := filepath.Join(t.TempDir(), databaseName)
	// A path that is there already, under another number than the closure's.
	db, err := createDatabase(t.Context(), file)
	check(t, err)
	last := infos[len(infos)-1].Path
	check(t, db.exec(t.Context(), "insert into ValidPaths (id, path, hash, registrationTime) values (1000000, ?, '', 1)", last))
	check(t, db.exec(t.Context(), "update sqlite_sequence set seq = 0"))
	check(t, db.Close())
	if _, err := newDraft(t.Context(), file, g, 1); err == nil {
		t.Fatal("a path was registered twice")
	}
	open, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	for _, fd := range open {
		if name, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && name == file {
			t.Errorf("the database is still open as %s", fd.Name())
		}
	}
}

// A database that was being made for a store goes when the import fails, though
// somebody else has made one meanwhile.
func TestRollbackOfDraft(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	d, err := openDestination(t.Context(), root, patience{report: func(string) {}})
	check(t, err)
	file, err := d.newDatabase()
	check(t, err)
	check(t, os.WriteFile(file, nil, 0o644))
	nix(t, "nix-store", "--store", root, "--init")
	check(t, d.lockDatabase(t.Context()))
	if d.fresh {
		t.Fatal("the store is taken for one without a database")
	}
	check(t, d.rollback(false))
	check(t, d.close())
	if _, err := os.Lstat(filepath.Dir(file)); err == nil {
		t.Error("the database is still there")
	}
	verifyStore(t, root)
}

// The cost of registering a closure in a new store, from the bytes of the
// registration to the complete database.
func BenchmarkRegister(b *testing.B) {
	for _, n := range []int{3000, 30000, 100000} {
		registration := fakeRegistration(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				infos, err := ParseRegistration(bytes.NewReader(registration), "registration")
				check(b, err)
				g, err := newGraph(&Closure{Name: "registration", Paths: infos})
				check(b, err)
				check(b, writeDatabase(b.Context(), filepath.Join(b.TempDir(), databaseName), g, nil, 1))
			}
		})
	}
}
