package nar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func openDirectory(t testing.TB, path string) *os.File {
	t.Helper()
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

// describe returns everything that an archive or the rules of a store say about
// the tree at path, a line for each file.
func describe(t *testing.T, path string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%q mode %o time %d.%09d", strings.TrimPrefix(p, path), st.Mode, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " to " + target
		case unix.S_IFREG:
			contents, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" contents %q", contents)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// makeWritable lets the test remove what Unpack has made.
func makeWritable(t testing.TB, path string) {
	t.Helper()
	t.Cleanup(func() {
		_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				_ = os.Chmod(p, 0o700)
			}
			return nil
		})
	})
}

func TestUnpackRefuses(t *testing.T) {
	for _, test := range malformed {
		t.Run(test.name, func(t *testing.T) {
			dir := openDirectory(t, t.TempDir())
			err := Unpack(t.Context(), strings.NewReader(test.archive), dir, "out")
			checkMalformed(t, err, test.want)
			if names, err := dir.Readdirnames(-1); err != nil || len(names) > 0 {
				t.Errorf("left %q, %v", names, err)
			}
		})
	}
}

func TestUnpackTakes(t *testing.T) {
	for name, want := range odd {
		t.Run(name, func(t *testing.T) {
			dir := openDirectory(t, t.TempDir())
			makeWritable(t, dir.Name())
			if err := Unpack(t.Context(), strings.NewReader(want), dir, "out"); err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			if err := DumpAt(&got, dir, "out"); err != nil {
				t.Fatal(err)
			}
			if got.String() != want {
				t.Error("the tree has another archive")
			}
		})
	}
}

// randomTree makes a tree at path that depends on nothing but random.
func randomTree(t *testing.T, random *rand.Rand, path string, depth int) {
	t.Helper()
	var err error
	switch kind := random.IntN(10); {
	case depth < 4 && (kind < 4 || depth == 0):
		err = os.Mkdir(path, 0o755)
		for range random.IntN(8) {
			name := make([]byte, 1+random.IntN(12))
			for i := range name {
				name[i] = "abcXYZ019.-_ ()~\xc3\xa9\n"[random.IntN(19)]
			}
			p := path + "/" + string(name)
			if _, statErr := os.Lstat(p); statErr == nil { // also . and ..
				continue
			}
			randomTree(t, random, p, depth+1)
		}
	case kind < 6:
		err = os.Symlink(strings.Repeat("../", random.IntN(5))+"target", path)
	default:
		contents := make([]byte, random.IntN(200))
		if random.IntN(10) == 0 {
			contents = make([]byte, random.IntN(2*bufferSize))
		}
		for i := range contents {
			contents[i] = byte(random.Uint32())
		}
		err = os.WriteFile(path, contents, []fs.FileMode{0o644, 0o755, 0o400, 0o511, 0o666}[random.IntN(5)])
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Of generated trees: our archive is Nix's, our unpacking of it is what Nix has
// in its store, and Nix restores the same from our archive.
func TestRoundTripWithNix(t *testing.T) {
	needNix(t)
	t.Setenv("NIX_CONFIG", "experimental-features = nix-command\nbuild-users-group =")
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			tmp := t.TempDir()
			makeWritable(t, tmp)
			tree := filepath.Join(tmp, "tree")
			if seed == 0 {
				oddTree(t, tree)
			} else {
				randomTree(t, rand.New(rand.NewPCG(seed, 0)), tree, 0)
			}
			want, err := exec.Command("nix-store", "--dump", tree).Output()
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			if err := Dump(&got, tree); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Fatalf("archive differs from Nix's: %d bytes, want %d", got.Len(), len(want))
			}
			if err := Unpack(t.Context(), bytes.NewReader(want), openDirectory(t, tmp), "unpacked"); err != nil {
				t.Fatal(err)
			}

			restore := exec.Command("nix-store", "--restore", filepath.Join(tmp, "restored"))
			restore.Stdin = &got
			if out, err := restore.CombinedOutput(); err != nil {
				t.Fatalf("nix-store --restore: %v\n%s", err, out)
			}
			restored, err := exec.Command("nix-store", "--dump", filepath.Join(tmp, "restored")).Output()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(restored, want) {
				t.Error("what Nix restores from our archive has another one")
			}

			root := filepath.Join(tmp, "root")
			path, err := exec.Command("nix", "--store", root, "store", "add-path", "--name", "tree", tree).Output()
			if err != nil {
				t.Fatal(err)
			}
			inStore := filepath.Join(root, strings.TrimSpace(string(path)))
			if diff := cmp.Diff(describe(t, inStore), describe(t, filepath.Join(tmp, "unpacked"))); diff != "" {
				t.Errorf("unpacked tree is not the one in Nix's store (-nix +ours):\n%s", diff)
			}
		})
	}
}

// Modes are canonical whatever the umask, and whatever the directory hands down.
func TestUnpackModes(t *testing.T) {
	dir := openDirectory(t, t.TempDir())
	makeWritable(t, dir.Name())
	if err := dir.Chmod(0o777 | fs.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	executable := list("(", "type", "regular", "executable", "", "contents", "x", ")")
	a := archive(directory(entry("a", file("a")), entry("b", executable), entry("c", directory(entry("d", file("d")), entry("e", executable)))))
	want := []string{
		`"" mode 40555 time 1.000000000`,
		`"/a" mode 100444 time 1.000000000 contents "a"`,
		`"/b" mode 100555 time 1.000000000 contents "x"`,
		`"/c" mode 40555 time 1.000000000`,
		`"/c/d" mode 100444 time 1.000000000 contents "d"`,
		`"/c/e" mode 100555 time 1.000000000 contents "x"`,
	}
	for _, umask := range []int{0, 0o022, 0o077, 0o011, 0o777} {
		t.Run(fmt.Sprintf("%03o", umask), func(t *testing.T) {
			name := fmt.Sprintf("out%o", umask)
			old := unix.Umask(umask)
			err := Unpack(t.Context(), strings.NewReader(a), dir, name)
			unix.Umask(old)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, describe(t, filepath.Join(dir.Name(), name))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// hookReader calls hook once, when the reader has come to the byte at.
type hookReader struct {
	r    io.Reader
	at   int
	hook func()
}

func (r *hookReader) Read(p []byte) (int, error) {
	if r.at == 0 && r.hook != nil {
		r.hook()
		r.hook = nil
	}
	if r.hook != nil {
		p = p[:min(len(p), r.at)]
	}
	n, err := r.r.Read(p)
	r.at -= n
	return n, err
}

// Whoever can write to a directory that is being unpacked cannot make Unpack
// write, change or remove anything elsewhere.
func TestUnpackSymlinksSwappedIn(t *testing.T) {
	const marker = "here something is swapped"
	a := archive(directory(
		entry("a", directory(entry("1", file(marker)), entry("2", file("2")), entry("3", directory(entry("4", file("4")))))),
		entry("b", directory(entry("5", file("5")))),
		entry("c", file("6"))))
	at := strings.Index(a, marker)
	tests := []struct {
		name    string
		swap    func(out, victim string) error
		wantErr bool
	}{
		{"an open directory", func(out, victim string) error {
			return errors.Join(os.Rename(out+"/a", out+"/old"), os.Symlink(victim, out+"/a"))
		}, false},
		{"the root", func(out, victim string) error {
			return errors.Join(os.Rename(out, out+"-old"), os.Symlink(victim, out))
		}, false},
		{"a directory to come", func(out, victim string) error { return os.Symlink(victim, out+"/b") }, true},
		{"a directory to come, below", func(out, victim string) error { return os.Symlink(victim, out+"/a/3") }, true},
		{"a file to come", func(out, victim string) error { return os.Symlink(victim+"/file", out+"/c") }, true},
		{"a file to come, dangling", func(out, victim string) error { return os.Symlink(victim+"/new", out+"/c") }, true},
		{"an open directory, then an error", func(out, victim string) error {
			return errors.Join(os.Rename(out+"/a", out+"/old"), os.Symlink(victim, out+"/a"), os.WriteFile(out+"/c", nil, 0o600))
		}, true},
		{"the root, then an error", func(out, victim string) error {
			return errors.Join(os.WriteFile(out+"/c", nil, 0o600), os.Rename(out, out+"-old"), os.Symlink(victim, out))
		}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tmp := t.TempDir()
			makeWritable(t, tmp)
			victim := filepath.Join(tmp, "victim")
			if err := os.MkdirAll(victim+"/a/1", 0o750); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(victim+"/file", []byte("precious"), 0o640); err != nil {
				t.Fatal(err)
			}
			want := describe(t, victim)
			r := &hookReader{strings.NewReader(a), at, func() {
				if err := test.swap(filepath.Join(tmp, "out"), victim); err != nil {
					t.Error(err)
				}
			}}
			err := Unpack(t.Context(), r, openDirectory(t, tmp), "out")
			if (err != nil) != test.wantErr {
				t.Errorf("err = %v, want one: %v", err, test.wantErr)
			}
			if diff := cmp.Diff(want, describe(t, victim)); diff != "" {
				t.Errorf("the victim has changed:\n%s", diff)
			}
		})
	}
}

func TestUnpackErrors(t *testing.T) {
	t.Run("exists", func(t *testing.T) {
		for name, a := range map[string]string{"file": archive(file("")), "directory": archive(directory()), "symlink": archive(symlink("x"))} {
			dir := openDirectory(t, t.TempDir())
			if err := os.WriteFile(filepath.Join(dir.Name(), "out"), []byte("mine"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := Unpack(t.Context(), strings.NewReader(a), dir, "out"); !errors.Is(err, fs.ErrExist) {
				t.Errorf("%s: err = %v, want %v", name, err, fs.ErrExist)
			}
			if got, err := os.ReadFile(filepath.Join(dir.Name(), "out")); err != nil || string(got) != "mine" {
				t.Errorf("%s: what was there is %q, %v", name, got, err)
			}
		}
	})
	t.Run("name", func(t *testing.T) {
		dir := openDirectory(t, t.TempDir())
		for _, name := range []string{"", ".", "..", "a/b", "/a", "../a"} {
			if err := Unpack(t.Context(), strings.NewReader(archive(file(""))), dir, name); err == nil {
				t.Errorf("name %q was taken", name)
			}
		}
	})
	t.Run("path of a failure", func(t *testing.T) {
		tmp := t.TempDir()
		a := archive(directory(entry("a", directory(entry("b", file("marker"))))))
		r := &hookReader{strings.NewReader(a), strings.Index(a, "entry"), func() {
			_ = os.WriteFile(filepath.Join(tmp, "out/a"), nil, 0o600)
		}}
		err := Unpack(t.Context(), r, openDirectory(t, tmp), "out")
		var path *fs.PathError
		if !errors.As(err, &path) || path.Path != "out/a" {
			t.Errorf("err = %v, want one about out/a", err)
		}
	})
	t.Run("bomb", func(t *testing.T) {
		// A reader that the caller ends where narSize says.
		bomb := io.MultiReader(strings.NewReader(wire(magic, "(", "type", "regular", "contents", length(1<<50))), zeros{})
		dir := openDirectory(t, t.TempDir())
		err := Unpack(t.Context(), io.LimitReader(bomb, 1<<20), dir, "out")
		checkMalformed(t, err, "malformed at byte 1048576: the archive is truncated")
	})
	t.Run("context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		endless := &hookReader{io.MultiReader(strings.NewReader(wire(magic, "(", "type", "regular", "contents", length(1<<50))), zeros{}), 10 << 20, cancel}
		dir := openDirectory(t, t.TempDir())
		if err := Unpack(ctx, endless, dir, "out"); !errors.Is(err, context.Canceled) {
			t.Errorf("err = %v, want %v", err, context.Canceled)
		}
		if names, err := dir.Readdirnames(-1); err != nil || len(names) > 0 {
			t.Errorf("left %q, %v", names, err)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// What an archive merely claims is not allocated.
func TestUnpackAllocatesNothingOnClaims(t *testing.T) {
	a := wire(magic, "(", "type", "regular", "contents", length(1<<50), raw("x"))
	dir := openDirectory(t, t.TempDir())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := Unpack(t.Context(), strings.NewReader(a), dir, "out"); err == nil {
		t.Error("accepted")
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 2*bufferSize {
		t.Errorf("%d bytes allocated", n)
	}
}
