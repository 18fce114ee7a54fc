package nar

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// oddTree makes a tree below dir of everything an archive can hold, with names
// that have tripped other implementations.
func oddTree(t *testing.T, dir string) {
	t.Helper()
	mkdir := func(name string) {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name, content string, mode fs.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	link := func(name, target string) {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"", "empty", "...", "a/b/c", ")dir", "a-dir", "sorted"} {
		mkdir(name)
	}
	for _, name := range []string{"..data", ")", "(", "type", "entry", "\xff\xfe", "new\nline", "a b", "ü", strings.Repeat("n", 255)} {
		file(name, "content of "+name, 0o644)
	}
	for i := range 18 { // every padding
		file("a/size"+strconv.Itoa(i), strings.Repeat("x", i), 0o644)
	}
	// '-' sorts before '/', '.' between them: bytewise order of names is not
	// the order of the joined paths.
	file("a.b", "", 0o644)
	file("run", "#!/bin/sh\n", 0o755)
	file("owner-x", "", 0o100)
	file("other-x", "", 0o655)
	link("link", "../nowhere")
	link("...link", ")")
	link("absolute", "/nix/store")
	link("long", strings.Repeat("t/", 2000))

	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		name := strconv.FormatUint(random.Uint64()%1000, 36)
		size := random.IntN(5000)
		if random.IntN(20) == 0 {
			size = 300<<10 + random.IntN(500<<10)
		}
		content := make([]byte, size)
		for i := range content {
			content[i] = byte(random.Uint32())
		}
		file("sorted/"+name, string(content), 0o644|fs.FileMode(random.IntN(2)*0o111))
	}
}

func needNix(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("nix-store"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

func TestDumpEqualsNix(t *testing.T) {
	needNix(t)
	dir := filepath.Join(t.TempDir(), "tree")
	oddTree(t, dir)
	for _, name := range []string{"", "run", "link", "empty", "a/size0", "a/size7", "a/size8"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			want, err := exec.Command("nix-store", "--dump", path).Output()
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			if err := Dump(&got, path); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("archive differs from Nix's: %d bytes, want %d", got.Len(), len(want))
			}
			digest, size, err := Hash(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			if size != int64(len(want)) || digest != sha256.Sum256(want) {
				t.Errorf("Hash = %x, %d bytes, want %x, %d", digest, size, sha256.Sum256(want), len(want))
			}
		})
	}
}

// The bytes of a small archive, spelled out, so that the format is pinned where
// Nix is not installed.
func TestDumpBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("hi"), 0o755); err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	for _, s := range []string{"nix-archive-1", "(", "type", "regular", "executable", "", "contents", "hi", ")"} {
		want.WriteByte(byte(len(s)))
		want.Write(make([]byte, 7))
		want.WriteString(s)
		want.Write(make([]byte, -len(s)&7))
	}
	var got bytes.Buffer
	if err := Dump(&got, path); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("got  %q\nwant %q", got.Bytes(), want.Bytes())
	}
}

func TestDumpErrors(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "with-fifo")
	if err := os.Mkdir(fifo, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(fifo, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	deep := filepath.Join(dir, "deep")
	if err := os.MkdirAll(deep+strings.Repeat("/d", 300), 0o755); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, path, want string }{
		{"missing", filepath.Join(dir, "missing"), "no such file"},
		{"fifo", fifo, "pipe: not a regular file, directory or symbolic link"},
		{"deep", deep, "nested deeper than 256 directories"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := Dump(&bytes.Buffer{}, test.path)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("err = %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestHashEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Hash(ctx, t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want %v", err, context.Canceled)
	}
}

type failingWriter struct{}

var errDisk = errors.New("disk full")

func (failingWriter) Write([]byte) (int, error) { return 0, errDisk }

func TestDumpReportsWriteError(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	oddTree(t, dir)
	if err := Dump(failingWriter{}, dir); !errors.Is(err, errDisk) {
		t.Errorf("err = %v, want %v", err, errDisk)
	}
}

// What is visited is what a walk finds, in the same order.
func TestDumpVisit(t *testing.T) {
	parent := t.TempDir()
	oddTree(t, filepath.Join(parent, "tree"))
	dir, err := os.Open(parent)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	var visited, walked []string
	describe := func(path string, ino uint64, mode uint32) string {
		return strconv.Quote(path) + " " + strconv.FormatUint(ino, 10) + " " + strconv.FormatUint(uint64(mode), 8)
	}
	var archive, want bytes.Buffer
	err = DumpVisit(&archive, dir, "tree", func(names []string, st *unix.Stat_t) {
		visited = append(visited, describe(filepath.Join(append([]string{parent, "tree"}, names...)...), st.Ino, st.Mode))
	})
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(parent, "tree"), func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		walked = append(walked, describe(path, st.Ino, st.Mode))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(walked, visited); diff != "" {
		t.Error(diff)
	}
	if err := DumpAt(&want, dir, "tree"); err != nil || !bytes.Equal(archive.Bytes(), want.Bytes()) {
		t.Errorf("another archive, %v", err)
	}
}
