package storedb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vm-prebuild/nar"
)

// testClosure is a store with a few paths and the closureInfo of them.
type testClosure struct {
	root  string // its nix/store has the files
	info  string // the closureInfo directory
	paths []PathInfo
}

// newTestClosure makes paths that hold everything that files in a store can be.
func newTestClosure(t *testing.T) *testClosure {
	t.Helper()
	c := &testClosure{root: filepath.Join(t.TempDir(), "source"), info: filepath.Join(t.TempDir(), "closure-info")}
	c.add(t, pathB, dir{
		"bin/run":             executable("#!/bin/sh\n"),
		"empty":               nil,
		"..data/)":            "odd names",
		"share/large":         strings.Repeat("0123456789abcdef", 40000),
		"share/empty":         "",
		"link":                symlink("../nowhere"),
		"share/a/b/c/d/e/f/g": "deep",
		"same":                "shared by two paths",
	})
	c.add(t, pathA, dir{"self": pathA, "other": symlink(pathB), "same": hardLink(pathB + "/same"), "again": hardLink(pathB + "/same")}, pathA, pathB)
	c.add(t, "/nix/store/33333333333333333333333333333333-file", "a path that is a file", pathA)
	c.add(t, "/nix/store/44444444444444444444444444444444-program", executable("#!/bin/sh\n"))
	c.add(t, "/nix/store/55555555555555555555555555555555-link", symlink(pathA), pathA)
	for i := range 8 {
		files := dir{}
		for j := range 8 {
			files[fmt.Sprintf("d%d/f%d", j%4, j)] = strings.Repeat(fmt.Sprint(i, j), 50*i*j)
		}
		c.add(t, fmt.Sprintf("/nix/store/%032d-many", 100+i), files, pathA)
	}
	c.write(t)
	return c
}

// What a store path can be made of: a tree of names, a string, or one of these.
type (
	dir        map[string]any
	executable string
	symlink    string
	hardLink   string // to a file of an earlier store path
)

// add makes a store path and registers it.
func (c *testClosure) add(t *testing.T, path string, content any, references ...string) {
	t.Helper()
	file := c.file(path)
	c.create(t, file, content)
	hash, size, err := nar.Hash(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	c.paths = append(c.paths, PathInfo{Path: path, NarHash: hash, NarSize: size, References: references})
}

func (c *testClosure) file(path string) string { return filepath.Join(c.root, path) }

func (c *testClosure) create(t *testing.T, file string, content any) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err != nil {
		t.Fatal(err)
	}
	switch content := content.(type) {
	case nil:
		err = os.Mkdir(file, 0o755)
	case string:
		err = os.WriteFile(file, []byte(content), 0o644)
	case executable:
		err = os.WriteFile(file, []byte(content), 0o755)
	case symlink:
		err = os.Symlink(string(content), file)
	case hardLink:
		err = os.Link(c.file(string(content)), file)
	case dir:
		for name, content := range content {
			c.create(t, file+"/"+name, content)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// write writes the closureInfo, sorted as Nix does: with forward references.
func (c *testClosure) write(t *testing.T) {
	t.Helper()
	slices.SortFunc(c.paths, func(a, b PathInfo) int { return strings.Compare(a.Path, b.Path) })
	var registration, storePaths strings.Builder
	for _, info := range c.paths {
		registration.WriteString(recordWith(info.Path, info.NarHash.String(), fmt.Sprint(info.NarSize), info.Deriver, info.References...))
		storePaths.WriteString(info.Path + "\n")
	}
	c.writeFiles(t, registration.String(), storePaths.String())
}

func (c *testClosure) writeFiles(t *testing.T, registration, storePaths string) {
	t.Helper()
	if err := os.MkdirAll(c.info, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{registrationFile: registration, StorePathsFile: storePaths} {
		if err := os.WriteFile(filepath.Join(c.info, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// options imports c into store.
func (c *testClosure) options(t *testing.T, store string) Options {
	t.Helper()
	return Options{Closure: c.read(t), From: c.root, Store: store, Jobs: 4}
}

// read reads what write has written.
func (c *testClosure) read(t *testing.T) *Closure {
	t.Helper()
	closure, err := ReadClosureInfo(c.info)
	if err != nil {
		t.Fatal(err)
	}
	return closure
}

// missing ends a test for lack of something that CI must have.
func missing(t *testing.T, why ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why...)
	}
	t.Skip(why...)
}

// nix runs a Nix command and returns what it prints.
func nix(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		missing(t, err)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "NIX_CONFIG=build-users-group =\nexperimental-features = nix-command", "NIX_REMOTE=")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	return string(out)
}

// verifyStore has Nix compare all files of a store with its database.
func verifyStore(t *testing.T, root string) {
	t.Helper()
	nix(t, "nix-store", "--verify", "--check-contents", "--store", root)
}

// listing is every file below dir and its metadata, except what comes and goes
// when a database is opened, and the times of directories.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch {
		case strings.HasSuffix(path, "-wal") || strings.HasSuffix(path, "-shm"):
		case info.IsDir():
			lines = append(lines, fmt.Sprint(path, " ", info.Mode()))
		default:
			lines = append(lines, fmt.Sprint(path, " ", info.Mode(), " ", info.ModTime().UnixNano(), " ", info.Size()))
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return lines
}

func TestReadClosureInfo(t *testing.T) {
	c := newTestClosure(t)
	registration := filepath.Join(c.info, registrationFile)
	for _, read := range []func() (*Closure, error){
		func() (*Closure, error) { return ReadClosureInfo(c.info) },
		func() (*Closure, error) { return ReadRegistration(registration, "") },
	} {
		closure, err := read()
		if err != nil {
			t.Fatal(err)
		}
		if len(closure.Paths) != len(c.paths) || closure.Name != registration {
			t.Errorf("%d paths of %s, want %d", len(closure.Paths), closure.Name, len(c.paths))
		}
	}
	c.writeFiles(t, "", "") // the closure of nothing
	if closure := c.read(t); len(closure.Paths) != 0 {
		t.Errorf("empty: %d paths", len(closure.Paths))
	}
}

func TestReadClosureInfoErrors(t *testing.T) {
	c := &testClosure{info: filepath.Join(t.TempDir(), "info")}
	registration, storePaths := filepath.Join(c.info, "registration"), filepath.Join(c.info, "store-paths")
	if _, err := ReadClosureInfo(c.info); err == nil || !strings.HasPrefix(err.Error(), registration+": no such file\nhint: ") {
		t.Errorf("missing directory: %v", err)
	}
	tests := []struct{ name, registration, storePaths, want string }{
		{"malformed", "x\n", "", registration + `:1: path "x" is not in /nix/store`},
		{"unlisted", record(pathA), "", storePaths + ": " + pathA + " is in the registration (line 1) but not here"},
		{"not registered", record(pathA), pathA + "\n" + pathB + "\n", storePaths + ":2: " + pathB + " is not in the registration"},
		{"bad store path", record(pathA), pathA + "\n/etc\n", storePaths + `:2: path "/etc" is not in /nix/store`},
		{"store-paths cut off", record(pathA), pathA, storePaths + ":1: the last line does not end in a newline: the file has been cut off"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c.writeFiles(t, test.registration, test.storePaths)
			_, err := ReadClosureInfo(c.info)
			if input := new(InputError); !errors.As(err, &input) || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

func TestReadStorePaths(t *testing.T) {
	c := newTestClosure(t)
	paths, err := ReadStorePaths(filepath.Join(c.info, StorePathsFile))
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) != len(c.paths) || paths[0] != c.paths[0].Path {
		t.Errorf("%d paths, the first %s; want %d and %s", len(paths), paths[0], len(c.paths), c.paths[0].Path)
	}
	c.writeFiles(t, "", pathA+"\n"+pathA+"\n")
	want := filepath.Join(c.info, "store-paths") + ":2: " + pathA + " is listed a second time"
	if _, err := ReadStorePaths(filepath.Join(c.info, StorePathsFile)); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
