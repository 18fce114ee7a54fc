package storedb

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A closure that has a root is still there after the garbage has been collected,
// and a new closure replaces the old one under its name.
func TestGCRoot(t *testing.T) {
	c := newTestClosure(t)
	root := filepath.Join(t.TempDir(), "root")
	options := c.options(t, root)
	options.GCRoot = "tests/closure"
	if _, err := Import(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(root, gcRootsDir, options.GCRoot))
	check(t, err)
	if len(entries) != len(c.paths)-2 { // pathA refers to pathB, and others to it
		t.Errorf("roots: %v", entries)
	}
	nix(t, "nix-store", "--store", root, "--gc")
	checkTrees(t, c, root)
	verifyStore(t, root)

	other := &testClosure{root: filepath.Join(t.TempDir(), "other"), info: t.TempDir()}
	other.add(t, "/nix/store/77777777777777777777777777777777-other", "other")
	other.write(t)
	replace := other.options(t, root)
	replace.GCRoot = options.GCRoot
	if _, err := Import(t.Context(), replace); err != nil {
		t.Fatal(err)
	}
	nix(t, "nix-store", "--store", root, "--gc")
	if valid := nix(t, "nix-store", "--store", root, "--query", "--requisites", other.paths[0].Path); strings.Count(valid, "\n") != 1 {
		t.Errorf("valid: %s", valid)
	}
	if _, err := os.Lstat(root + pathA); err == nil {
		t.Error("the old closure is still there")
	}
	// All that is to be done is to make the roots.
	replace.GCRoot = "another"
	if summary, err := Import(t.Context(), replace); err != nil || summary.Placed != 0 {
		t.Fatal(summary, err)
	}
	check(t, os.RemoveAll(filepath.Join(root, gcRootsDir, options.GCRoot)))
	nix(t, "nix-store", "--store", root, "--gc")
	checkContents(t, other, root)
	if left := leftovers(t, root); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Roots that an import has not made are not replaced, and names do not lead out
// of their directory. Nothing is imported then.
func TestGCRootRefused(t *testing.T) {
	c := newTestClosure(t)
	tests := []struct {
		name, want string
		make       func(t *testing.T, dir string)
	}{
		{"../x", `../x: cannot be the name of a garbage collector root`, nil},
		{"/x", `/x: cannot be the name`, nil},
		{".", `.: cannot be the name`, nil},
		{"a//b", `a//b: cannot be the name`, nil},
		{"per-user", "an empty directory, not roots made by an import", nil},
		{"profile", "ROOTS/profile/1: not a root made by an import", func(t *testing.T, dir string) {
			check(t, os.Mkdir(dir+"/profile", 0o755))
			check(t, os.Symlink(pathA, dir+"/profile/1"))
		}},
		{"file", "not a directory", func(t *testing.T, dir string) { check(t, os.WriteFile(dir+"/file", nil, 0o644)) }},
		{"link", "not a directory", func(t *testing.T, dir string) { check(t, os.Symlink(t.TempDir(), dir+"/link")) }},
		{"link/x", "ROOTS/link: not a directory", func(t *testing.T, dir string) { check(t, os.Symlink(t.TempDir(), dir+"/link")) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			roots := filepath.Join(root, gcRootsDir)
			check(t, os.MkdirAll(roots+"/per-user", 0o755))
			if test.make != nil {
				test.make(t, roots)
			}
			before := listing(t, root)
			options := c.options(t, root)
			options.GCRoot = test.name
			_, err := Import(t.Context(), options)
			want := strings.ReplaceAll(test.want, "ROOTS", roots)
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "\nhint: ") {
				t.Errorf("err = %v, want one with %q and a hint", err, want)
			}
			if after := listing(t, root); len(after) != len(before) {
				t.Errorf("before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
			}
		})
	}
}
