package storedb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vm-prebuild/nar"
)

// archives are Files that archive the paths of a test closure and unpack them.
type archives struct {
	c     *testClosure
	limit int64 // paths to place before failing; 0 means all

	mu       sync.Mutex
	expected []string
	placed   []string
	begun    atomic.Int64
}

var errLimit = errors.New("no more")

func (a *archives) Expect(infos []PathInfo) { a.expected = append(a.expected, paths(infos)...) }

func (a *archives) Place(ctx context.Context, info PathInfo, dir *os.File, name string) error {
	if n := a.begun.Add(1); a.limit > 0 && n > a.limit {
		check := unix.Mkdirat(int(dir.Fd()), name, 0o500) // something half made
		return errors.Join(errLimit, check)
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(nar.Dump(w, a.c.file(info.Path))) }()
	defer func() { _ = r.Close() }()
	if err := nar.Unpack(ctx, r, dir, name); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.placed = append(a.placed, info.Path)
	return nil
}

func filesOptions(t *testing.T, a *archives, root string) Options {
	o := a.c.options(t, root)
	o.From, o.Files, o.Jobs = "/nonexistent", a, 1
	return o
}

func TestImportFiles(t *testing.T) {
	c := newTestClosure(t)
	root := filepath.Join(t.TempDir(), "root")
	a := &archives{c: c}
	options := filesOptions(t, a, root)
	summary, err := Import(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	if summary.Placed != len(c.paths) || summary.Resumed != 0 {
		t.Errorf("summary %+v", summary)
	}
	all := paths(c.read(t).Paths) // in the order of the closure
	if diff := cmp.Diff(all, a.expected); diff != "" {
		t.Errorf("expected: %s", diff)
	}
	if diff := cmp.Diff(all, a.placed); diff != "" {
		t.Errorf("placed: %s", diff)
	}
	checkContents(t, c, root)
	checkMetadata(t, filepath.Join(root, storeDir))
	verifyStore(t, root)

	a = &archives{c: c}
	options = filesOptions(t, a, filepath.Join(t.TempDir(), "root"))
	options.Jobs = 4
	if _, err := Import(t.Context(), options); err != nil || len(a.placed) != len(c.paths) {
		t.Errorf("%d paths placed, %v", len(a.placed), err)
	}
}

// What Files have completed when an import fails is taken up by the next one, if
// it still is what it should be.
func TestImportResumes(t *testing.T) {
	for _, state := range []string{"fresh", "store"} {
		t.Run(state, func(t *testing.T) {
			c := newTestClosure(t)
			root := filepath.Join(t.TempDir(), "root")
			if state == "store" {
				nix(t, "nix-store", "--store", root, "--init")
			}
			if _, err := Import(t.Context(), filesOptions(t, &archives{c: c, limit: 5}, root)); !errors.Is(err, errLimit) {
				t.Fatalf("err = %v", err)
			}
			kept, err := filepath.Glob(filepath.Join(root, storeDir, "*"+tempSuffix, "*"))
			check(t, err)
			if len(kept) != 5 {
				t.Fatalf("kept: %q", kept)
			}
			// One of them is damaged, and something else has come in.
			check(t, os.RemoveAll(kept[0]))
			check(t, os.WriteFile(kept[0], []byte("x"), 0o644))
			check(t, os.MkdirAll(filepath.Join(filepath.Dir(kept[0]), "partial-7", "x"), 0o755))
			if state == "store" {
				verifyStore(t, root)
			}
			a := &archives{c: c}
			summary, err := Import(t.Context(), filesOptions(t, a, root))
			if err != nil {
				t.Fatal(err)
			}
			if summary.Resumed != 4 || len(a.placed) != len(c.paths)-4 || len(a.expected) != len(a.placed) {
				t.Errorf("%d paths taken up, %d placed, %d expected", summary.Resumed, len(a.placed), len(a.expected))
			}
			checkContents(t, c, root)
			checkMetadata(t, filepath.Join(root, storeDir))
			verifyStore(t, root)
			if left := leftovers(t, root); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// An import of a local store has no use for what Files have left.
func TestImportRemovesIncomplete(t *testing.T) {
	c := newTestClosure(t)
	root := filepath.Join(t.TempDir(), "root")
	if _, err := Import(t.Context(), filesOptions(t, &archives{c: c, limit: 5}, root)); !errors.Is(err, errLimit) {
		t.Fatalf("err = %v", err)
	}
	if _, err := Import(t.Context(), c.options(t, root)); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, root); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// The garbage collector removes what is left by imports that are over, and
// nothing of one that is not.
func TestGarbageCollectorRemovesIncomplete(t *testing.T) {
	c := newTestClosure(t)
	root := filepath.Join(t.TempDir(), "root")
	nix(t, "nix-store", "--store", root, "--init")
	if _, err := Import(t.Context(), filesOptions(t, &archives{c: c, limit: 5}, root)); !errors.Is(err, errLimit) {
		t.Fatalf("err = %v", err)
	}
	options := filesOptions(t, &archives{c: c}, root)
	options.Progress = func(p Progress) {
		if p.Phase == PhasePlace && p.Paths == 7 {
			nix(t, "nix-store", "--store", root, "--gc")
		}
	}
	summary, err := Import(t.Context(), options)
	if err != nil || summary.Resumed != 5 {
		t.Fatalf("summary %+v, err = %v", summary, err)
	}
	verifyStore(t, root)
	nix(t, "nix-store", "--store", root, "--gc")
	if _, err := Import(t.Context(), filesOptions(t, &archives{c: c, limit: 5}, root)); !errors.Is(err, errLimit) {
		t.Fatalf("err = %v", err)
	}
	nix(t, "nix-store", "--store", root, "--gc")
	if left := leftovers(t, root); len(left) > 0 {
		t.Errorf("not removed: %v", left)
	}
}

// Paths whose files are in the store already are only registered.
func TestRegisterOnly(t *testing.T) {
	c := newTestClosure(t)
	for _, state := range []string{"fresh", "store"} {
		t.Run(state, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			check(t, os.MkdirAll(root+"/nix", 0o755))
			nix(t, "cp", "-a", filepath.Join(c.root, storeDir), filepath.Join(root, storeDir))
			if state == "store" {
				nix(t, "nix-store", "--store", root, "--init")
			}
			before := listingWithoutLinks(t, root)
			options := c.options(t, root)
			options.From, options.RegisterOnly, options.Verify = "/nonexistent", true, VerifyHash
			if _, err := Import(t.Context(), options); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, listingWithoutLinks(t, root)); diff != "" {
				t.Errorf("the files have changed: %s", diff)
			}
			verifyStore(t, root)
		})
	}
	t.Run("missing", func(t *testing.T) {
		root := filepath.Join(t.TempDir(), "root")
		check(t, os.MkdirAll(root, 0o755))
		options := c.options(t, root)
		options.RegisterOnly = true
		_, err := Import(t.Context(), options)
		if input := new(InputError); !errors.As(err, &input) || !strings.Contains(err.Error(), " is not in the store "+root+"/nix/store") {
			t.Errorf("err = %v", err)
		}
		if left := listing(t, root); len(left) != 1 {
			t.Errorf("left behind: %q", left)
		}
	})
	t.Run("modified", func(t *testing.T) {
		root := filepath.Join(t.TempDir(), "root")
		check(t, os.MkdirAll(root+"/nix", 0o755))
		nix(t, "cp", "-a", filepath.Join(c.root, storeDir), filepath.Join(root, storeDir))
		check(t, os.WriteFile(root+pathB+"/same", []byte("other"), 0o644))
		options := c.options(t, root)
		options.RegisterOnly, options.Verify = true, VerifySize
		before := listing(t, root)
		_, err := Import(t.Context(), options)
		if verify := new(VerifyError); !errors.As(err, &verify) || !strings.Contains(err.Error(), "was modified: its archive has ") {
			t.Errorf("err = %v", err)
		}
		if diff := cmp.Diff(before, listing(t, root)); diff != "" {
			t.Errorf("the store has changed: %s", diff)
		}
	})
}

func listingWithoutLinks(t *testing.T, root string) []string {
	t.Helper()
	check(t, os.RemoveAll(filepath.Join(root, storeDir, linksDir)))
	return listing(t, filepath.Join(root, storeDir))
}

// Reregistering does to paths that are valid what nix-store --load-db does.
func TestReregister(t *testing.T) {
	c := newTestClosure(t)
	var roots [2]string
	for n := range roots {
		roots[n] = filepath.Join(t.TempDir(), "root")
		if _, err := Import(t.Context(), c.options(t, roots[n])); err != nil {
			t.Fatal(err)
		}
	}
	for n := range c.paths {
		if c.paths[n].Path == pathB {
			c.paths[n].NarHash[0] ^= 1
			c.paths[n].NarSize++
		}
	}
	c.add(t, "/nix/store/66666666666666666666666666666666-x", "x", pathB)
	c.write(t)
	options := c.options(t, roots[0])
	options.Reregister = true
	summary, err := Import(t.Context(), options)
	if err != nil || summary.Placed != 1 || summary.AlreadyValid != len(c.paths)-1 {
		t.Fatalf("summary %+v, err = %v", summary, err)
	}
	nix(t, "sh", "-c", "nix-store --load-db --store "+roots[1]+" < "+filepath.Join(c.info, registrationFile))
	got, want := nix(t, "nix-store", "--store", roots[0], "--dump-db"), nix(t, "nix-store", "--store", roots[1], "--dump-db")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The size of a path is enough to find many a damage.
func TestVerifySize(t *testing.T) {
	c := newTestClosure(t)
	options := c.options(t, filepath.Join(t.TempDir(), "root"))
	options.Verify = VerifySize
	if _, err := Import(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	check(t, os.WriteFile(c.file(pathB)+"/added", nil, 0o644))
	options.Store = filepath.Join(t.TempDir(), "root")
	_, err := Import(t.Context(), options)
	verify := new(VerifyError)
	if !errors.As(err, &verify) || verify.Path != pathB || !strings.Contains(err.Error(), fmt.Sprint(verify.WantBytes)) {
		t.Errorf("err = %v", err)
	}
}
