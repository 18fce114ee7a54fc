// Package offline holds the test that the fixtures committed to this repository
// are still what real Nix makes.
package offline

import (
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the fixtures that Nix makes")

// Where fixtures.sh writes to, below the repository.
var folders = []string{"nar/testdata", "nar/narinfo/testdata", "storedb/testdata", "buildhook/protocol/testdata"}

func TestFixtures(t *testing.T) {
	newer := os.Getenv("VM_PREBUILD_TRIXIE")
	if newer == "" {
		newer = "/var/cache/vm-prebuild/trixie"
	}
	for version, nix := range map[string]string{"2.8": "nix", "2.26": newer + "/bin/nix"} {
		t.Run(version, func(t *testing.T) {
			lack := t.Skip
			if os.Getenv("CI") != "" {
				lack = t.Fatal
			}
			nix, err := exec.LookPath(nix)
			if err != nil {
				lack(err, "\nhint: nix/offline/setup.sh installs it")
			}
			out, err := exec.Command(nix, "--version").Output()
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(out), "nix (Nix) "+version+".") {
				lack(nix, "is another version:", string(out))
			}
			repository := filepath.Join("..", "..")
			root := t.TempDir()
			if *update {
				root = repository
			}
			if out, err := exec.Command("./fixtures.sh", filepath.Dir(nix), root).CombinedOutput(); err != nil {
				t.Fatalf("fixtures.sh: %v\n%s", err, out)
			}
			for _, folder := range folders {
				folder = filepath.Join(folder, "nix-"+version)
				want, got := files(t, filepath.Join(repository, folder)), files(t, filepath.Join(root, folder))
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s is not what Nix makes now (-committed +made):\n%s", folder, diff)
				}
			}
		})
	}
}

// files returns the contents of the files below dir by their names.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	contents := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		contents[strings.TrimPrefix(path, dir)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return contents
}
