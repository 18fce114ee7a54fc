package tree

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func openDir(t *testing.T, name string) int {
	t.Helper()
	fd, err := OpenDir(unix.AT_FDCWD, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { CloseRead(fd) })
	return fd
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Entries come with their kinds, also when they take several buffers.
func TestEachEntry(t *testing.T) {
	dir := t.TempDir()
	want := map[string]uint8{"dir": unix.DT_DIR, "link": unix.DT_LNK, "...": unix.DT_REG}
	check(t, os.Mkdir(filepath.Join(dir, "dir"), 0o755))
	check(t, os.Symlink("nowhere", filepath.Join(dir, "link")))
	check(t, os.WriteFile(filepath.Join(dir, "..."), nil, 0o644))
	for i := range 500 {
		name := fmt.Sprintf("file with a name of some length %d", i)
		check(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
		want[name] = unix.DT_REG
	}
	got := map[string]uint8{}
	check(t, EachEntry(openDir(t, dir), make([]byte, 1024), func(name string, kind uint8) { got[name] = kind }))
	if !maps.Equal(got, want) {
		t.Errorf("got %d entries, want %d", len(got), len(want))
	}

	// Names can be asked for again and again.
	fd := openDir(t, dir)
	for range 2 {
		names, err := Names(fd)
		check(t, err)
		slices.Sort(names)
		if want := slices.Sorted(maps.Keys(want)); !slices.Equal(names, want) {
			t.Errorf("names %q, want %q", names, want)
		}
	}
}

func TestSetTime(t *testing.T) {
	dir := t.TempDir()
	fd := openDir(t, dir)
	check(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
	check(t, os.Symlink("file", filepath.Join(dir, "link")))
	check(t, SetTimeOfLink(fd, "link"))
	canonical := func(name string) bool {
		info, err := os.Lstat(filepath.Join(dir, name))
		check(t, err)
		return info.ModTime().Equal(time.Unix(Mtime, 0))
	}
	if !canonical("link") || canonical("file") {
		t.Error("the time of a link is not set, or that of what it leads to is")
	}
	file, err := Open(fd, "file", OpenFlags, 0)
	check(t, err)
	defer CloseRead(file)
	check(t, SetTime(file))
	if !canonical("file") {
		t.Error("the time of a file is not set")
	}
	if _, err := Open(fd, "link", OpenFlags, 0); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a symbolic link was opened: %v", err)
	}
}

// A tree is removed though its directories are read-only, and nothing that its
// links lead to.
func TestRemove(t *testing.T) {
	dir := t.TempDir()
	fd := openDir(t, dir)
	check(t, os.MkdirAll(filepath.Join(dir, "tree", "a", "b"), 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "kept"), nil, 0o644))
	check(t, os.Symlink("../../kept", filepath.Join(dir, "tree", "a", "link")))
	check(t, os.Symlink("..", filepath.Join(dir, "tree", "up")))
	for _, name := range []string{"tree/a/b", "tree/a", "tree"} {
		check(t, os.Chmod(filepath.Join(dir, name), ModeExecutable))
	}
	for range 2 { // the second time there is nothing to remove
		check(t, Remove(fd, "tree"))
	}
	names, err := Names(fd)
	check(t, err)
	if !slices.Equal(names, []string{"kept"}) {
		t.Errorf("there is %q", names)
	}
}
