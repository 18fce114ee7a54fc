package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// libBuild builds one of the derivations of testdata/lib.nix, anew, with the nix-build
// of bin, and returns the path of the result.
func libBuild(t *testing.T, bin, tree, name string, args ...string) string {
	t.Helper()
	args = append([]string{"testdata/lib.nix", "--no-out-link", "-A", name, "--arg", "tree", tree,
		"--argstr", "now", fmt.Sprint(time.Now().UnixNano())}, args...)
	return nixOutput(t, ".", filepath.Join(bin, "nix-build"), args...)
}

// TestSetupNixInNix builds a derivation the builder of which asks a Nix about the
// closure that it was given, and builds something else with it.
func TestSetupNixInNix(t *testing.T) {
	need(t, manifestEnv)
	dir := tree(t)
	eachNix(t, func(t *testing.T, bin string) {
		out := libBuild(t, bin, dir, "nixInNix")
		read := func(name string) string {
			t.Helper()
			text, err := os.ReadFile(filepath.Join(out, name))
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		if got, want := read("built"), "a dependency\nbuilt inside\n"; got != want {
			t.Errorf("%q is not %q", got, want)
		}
		requisites := strings.Fields(read("requisites"))
		of := slices.IndexFunc(requisites, func(path string) bool { return strings.HasSuffix(path, "-a-package") })
		if len(requisites) != 2 || of < 0 {
			t.Fatal(requisites)
		}
		outside := strings.Fields(nixOutput(t, ".", filepath.Join(bin, "nix-store"), "--query", "--requisites", requisites[of]))
		slices.Sort(outside)
		if !slices.Equal(requisites, outside) {
			t.Errorf("inside there are %v, outside %v", requisites, outside)
		}
		// The two, bash and busybox; nothing else of the machine's store.
		if got := read("paths"); got != "4\n" {
			t.Errorf("the store has %s paths", got)
		}
	})
}

// TestWithPrebuiltVMs builds a derivation that runs a VM test, and uses the
// closure.
func TestWithPrebuiltVMs(t *testing.T) {
	need(t, manifestEnv)
	out := libBuild(t, oldNix, tree(t), "prebuiltVMs")
	for name, want := range map[string]string{
		"tests":     "existing\nmodule\n",
		"junit.xml": `name="existing"`,
	} {
		text, err := os.ReadFile(filepath.Join(out, name))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}

// TestStoreImage says that an image of a closure holds just that, is the same
// whenever and by whom it is made, and carries the label by which nixpkgs mounts it.
func TestStoreImage(t *testing.T) {
	need(t, manifestEnv)
	dir := tree(t)
	var image string
	eachNix(t, func(t *testing.T, bin string) {
		image = libBuild(t, bin, dir, "storeImage")
		// Built again, in another directory at another time, it must not differ.
		libBuild(t, bin, dir, "storeImage", "--check")
	})
	// Nor does it in a store where equal files are one.
	store := t.TempDir()
	removable(t, store)
	again := libBuild(t, oldNix, dir, "storeImage", "--store", store, "--option", "auto-optimise-store", "true")
	if out, err := command(t, ".", "cmp", image, store+again); err != nil {
		t.Errorf("the image of an optimised store differs: %v\n%s", err, out)
	}
	for tag, want := range map[string]string{"LABEL": "nix-store", "TYPE": "erofs"} {
		if got := nixOutput(t, ".", "/usr/sbin/blkid", "-o", "value", "-s", tag, image); got != want {
			t.Errorf("%s is %q, not %q", tag, got, want)
		}
	}
	mounted := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "ro,loop", image, mounted).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mounted).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	entries, err := os.ReadDir(mounted)
	if err != nil || len(entries) != 2 {
		t.Fatal(entries, err)
	}
	for _, entry := range entries {
		// What Nix registered when it was built is what is in the image.
		path := "/nix/store/" + entry.Name()
		want := nixOutput(t, ".", "nix-store", "--query", "--hash", path)
		got := nixOutput(t, ".", "nix-hash", "--type", "sha256", "--base32", filepath.Join(mounted, entry.Name()))
		if "sha256:"+got != want {
			t.Errorf("%s: the image has sha256:%s, the store %s", entry.Name(), got, want)
		}
		var times []int64
		err := filepath.WalkDir(filepath.Join(mounted, entry.Name()), func(_ string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			times = append(times, info.ModTime().Unix())
			return err
		})
		if err != nil || slices.ContainsFunc(times, func(t int64) bool { return t != 1 }) {
			t.Errorf("times of modification: %v, %v", times, err)
		}
	}
}
