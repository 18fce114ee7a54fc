package nar

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// testdata/nix-VERSION is made by that Nix: nix/offline/fixtures.sh.
func TestFixtures(t *testing.T) {
	for _, version := range []string{"nix-2.8", "nix-2.26"} {
		t.Run(version, func(t *testing.T) {
			archive, err := os.ReadFile(filepath.Join("testdata", version, "tree.nar"))
			if err != nil {
				t.Fatal(err)
			}
			tmp := t.TempDir()
			makeWritable(t, tmp)
			if err := Unpack(t.Context(), bytes.NewReader(archive), openDirectory(t, tmp), "tree"); err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			listing, err := DumpListing(&got, filepath.Join(tmp, "tree"))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), archive) {
				t.Error("unpacked and dumped, the archive is another")
			}
			// Versions of Nix differ in the order of keys.
			want, err := os.ReadFile(filepath.Join("testdata", version, "tree.ls"))
			if err != nil {
				t.Fatal(err)
			}
			list, err := json.Marshal(listing)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(decode(t, want), decode(t, list)); diff != "" {
				t.Errorf("listing (-nix +ours):\n%s", diff)
			}
		})
	}
}

func decode(t *testing.T, data []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}
