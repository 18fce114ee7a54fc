package storedb

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
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
