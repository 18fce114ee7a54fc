package narinfo

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// testdata/nix-VERSION is made by that Nix: nix/offline/fixtures.sh.
func TestFixtures(t *testing.T) {
	secret, public := keys(t)
	for _, version := range []string{"nix-2.8", "nix-2.26"} {
		for _, compression := range []string{"none", "xz", "zstd"} {
			files, err := filepath.Glob(filepath.Join("testdata", version, compression, "*.narinfo"))
			if err != nil || len(files) != 3 {
				t.Fatalf("%q, %v; want three narinfos", files, err)
			}
			for _, file := range files {
				t.Run(strings.TrimPrefix(file, "testdata/"), func(t *testing.T) {
					data, err := os.ReadFile(file)
					if err != nil {
						t.Fatal(err)
					}
					n, err := Parse(bytes.NewReader(data), file)
					if err != nil {
						t.Fatal(err)
					}
					if n.String() != string(data) {
						t.Errorf("String() =\n%s\nwant\n%s", n, data)
					}
					if n.Compression != compression || n.HashPart()+".narinfo" != filepath.Base(file) {
						t.Errorf("compression %s, hash part %s", n.Compression, n.HashPart())
					}
					if err := n.Verify(public); err != nil {
						t.Error(err)
					}
					sigs := slices.Clone(n.Sigs)
					n.Sigs = nil
					if err := n.Sign(secret); err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(sigs, n.Sigs); diff != "" {
						t.Errorf("signatures (-nix +ours):\n%s", diff)
					}
				})
			}
		}
	}
}
