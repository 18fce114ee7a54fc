// Package nartest makes store paths for tests; [NewStore] does.
package nartest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/nix-community/go-nix/pkg/nixbase32"

	"vm-prebuild/nar"
	"vm-prebuild/nar/narinfo"
	"vm-prebuild/nar/storepath"
)

// Store is a store below a root, without a database.
type Store struct {
	Root  string
	Infos []*narinfo.NarInfo // each after those that it refers to
}

// Path returns the store path number i of name.
func Path(i int, name string) string {
	digest := sha256.Sum256([]byte(fmt.Sprint(i, name)))
	return storepath.Dir + "/" + nixbase32.EncodeToString(digest[:20]) + "-" + name
}

// File returns where the files of a path are.
func (s *Store) File(path string) string { return filepath.Join(s.Root, path) }

// NewStore makes a store with n paths, the first of them of large bytes and the
// others small. Each refers to the two before it, and every third to itself.
func NewStore(t testing.TB, n, large int) *Store {
	t.Helper()
	s := &Store{Root: t.TempDir()}
	random := rand.New(rand.NewChaCha8([32]byte{byte(n)}))
	for i := range n {
		path := Path(i, "path")
		size := 100 + random.IntN(5000)
		if i == 0 {
			size = large
		}
		s.tree(t, path, size, random)
		hash, narSize, err := nar.Hash(t.Context(), s.File(path))
		if err != nil {
			t.Fatal(err)
		}
		info := &narinfo.NarInfo{StorePath: path, NarHash: hash, NarSize: narSize, Deriver: Path(i, "path.drv")}
		for _, j := range []int{i - 1, i - 2} {
			if j >= 0 {
				info.References = append(info.References, Path(j, "path"))
			}
		}
		if i%3 == 0 {
			info.References = append(info.References, path)
		}
		slices.Sort(info.References)
		s.Infos = append(s.Infos, info)
	}
	return s
}

// tree makes a file, or a directory with several kinds of files.
func (s *Store) tree(t testing.TB, path string, size int, random *rand.Rand) {
	t.Helper()
	contents := make([]byte, size)
	for i := range contents { // not all of it compresses
		contents[i] = byte(random.IntN(1 + i%256))
	}
	root := s.File(path)
	if size%4 == 0 {
		write(t, root, contents, 0o444)
		return
	}
	write(t, filepath.Join(root, "share", "doc", "text"), contents[:size/2], 0o444)
	write(t, filepath.Join(root, "bin", "program"), contents[size/2:], 0o555)
	write(t, filepath.Join(root, "empty"), nil, 0o444)
	if err := os.Symlink("bin/program", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, file string, contents []byte, mode fs.FileMode) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err = errors.Join(err, os.WriteFile(file, contents, mode)); err != nil {
		t.Fatal(err)
	}
}

// Check compares the files at path with what info says.
func Check(t testing.TB, info *narinfo.NarInfo, path string) {
	t.Helper()
	hash, size, err := nar.Hash(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if narinfo.Hash(hash) != info.NarHash || size != info.NarSize {
		t.Errorf("%s differs from %s", path, info.StorePath)
	}
}

// OpenDir makes and opens a directory to unpack into.
func OpenDir(t testing.TB) *os.File {
	t.Helper()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

// Tool skips the test if there is no program name, which CI must have.
func Tool(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}
