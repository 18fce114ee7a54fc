package synthetic

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func small() Spec { return Spec{Paths: 60, Files: 800, Bytes: 6_000_000, Seed: 7} }

// write makes s in a directory that can be removed afterwards.
func write(t *testing.T, s Spec) (string, *Closure) {
	t.Helper()
	root := t.TempDir()
	closure, err := s.Write(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return err
			}
			return os.Chmod(path, 0o755)
		})
		if err != nil {
			t.Error(err)
		}
	})
	return root, closure
}

// TestNixAccepts has Nix check a closure's hashes and metadata.
func TestNixAccepts(t *testing.T) {
	if _, err := exec.LookPath("nix-store"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	specs := map[string]Spec{
		"heavy tail": small(),
		"even":       {Paths: 5, Files: 500, Bytes: 1 << 20, Even: true},
		"empty":      {Paths: 40},
	}
	for name, spec := range specs {
		t.Run(name, func(t *testing.T) {
			root, closure := write(t, spec)
			load := exec.CommandContext(t.Context(), "nix-store", "--load-db", "--store", root)
			load.Env = append(os.Environ(), "NIX_CONFIG=build-users-group =")
			registration, err := os.Open(filepath.Join(root, ClosureInfoDir, "registration"))
			if err != nil {
				t.Fatal(err)
			}
			defer registration.Close()
			load.Stdin = registration
			if out, err := load.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			verify := exec.CommandContext(t.Context(), "nix-store", "--verify", "--check-contents", "--store", root)
			verify.Env = load.Env
			out, err := verify.CombinedOutput()
			if err != nil || strings.Contains(string(out), "error") || strings.Contains(string(out), "modified") {
				t.Errorf("%v\n%s", err, out)
			}
			t.Logf("%d files, %d symbolic links, %d bytes", closure.Files, closure.Symlinks, closure.NarBytes)
		})
	}
}

// TestDeterministic makes a closure twice and compares it with the one that
// there has always been: figures of benchmarks are comparable only then.
func TestDeterministic(t *testing.T) {
	const want = "bc7796047a90a92e3bc53651a72ddcfb998504dee8b3e0d10da85c69b72be2b2"
	for range 2 {
		root, _ := write(t, small())
		registration, err := os.ReadFile(filepath.Join(root, ClosureInfoDir, "registration"))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(registration)); got != want {
			t.Errorf("the registration has the hash %s, want %s", got, want)
		}
	}
}

// TestReference checks the figures that the benchmarks' targets are about.
func TestReference(t *testing.T) {
	paths := Reference().plan()
	files, references, bytes := 0, 0, int64(0)
	for _, p := range paths {
		files += len(p.sizes)
		references += len(p.references)
		for _, size := range p.sizes {
			bytes += size
		}
	}
	within := func(what string, got, low, high int64) {
		if got < low || got > high {
			t.Errorf("%s: %d, want %d to %d", what, got, low, high)
		}
	}
	within("paths", int64(len(paths)), 3000, 3000)
	within("files", int64(files), 59_000, 61_000)
	within("references", int64(references), 19_500, 21_500)
	within("bytes", bytes, 1_400_000_000, 1_550_000_000)
}

func TestImpossible(t *testing.T) {
	for _, spec := range []Spec{{}, {Paths: 1, Files: -1}, {Paths: 1, Files: 1, RegistrationOnly: true}} {
		if _, err := spec.Write(t.Context(), t.TempDir()); err == nil {
			t.Errorf("%+v was accepted", spec)
		}
	}
}
