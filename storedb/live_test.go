package storedb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// tryNix is nix for goroutines that must not end the test.
func tryNix(ctx context.Context, stdin string, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "NIX_CONFIG=build-users-group =\nrequire-sigs = false", "NIX_REMOTE=")
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// Imports into one store, while Nix collects its garbage and makes some of the
// same paths, all succeed; and what has a root stays.
func TestImportBesideNix(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	source := filepath.Join(t.TempDir(), "source")
	file := filepath.Join(t.TempDir(), "added")
	check(t, os.WriteFile(file, []byte(strings.Repeat("by Nix", 1000)), 0o644))
	added := strings.TrimSpace(nix(t, "nix-store", "--store", source, "--add", file))
	c := newTestClosure(t)
	c.add(t, added, strings.Repeat("by Nix", 1000))
	c.add(t, "/nix/store/66666666666666666666666666666666-refers", "x", added)
	c.write(t)
	nix(t, "sh", "-c", "nix-store --load-db --store "+c.root+" < "+filepath.Join(c.info, registrationFile))
	exported := nix(t, "nix-store", "--store", c.root, "--export", pathA, pathB)
	nix(t, "nix-store", "--store", root, "--init")

	over := make(chan struct{})
	var nixes errgroup.Group
	var rounds, aborts atomic.Int64
	for _, command := range [][]string{
		{"", "nix-store", "--store", root, "--gc"},
		{"", "nix-store", "--store", root, "--add", file},
		{exported, "nix-store", "--store", root, "--import"},
	} {
		nixes.Go(func() error {
			for {
				select {
				case <-over:
					return nil
				default:
				}
				err := tryNix(t.Context(), command[0], command[1:]...)
				if err != nil && slices.Contains(command, "--gc") && strings.Contains(err.Error(), nixCollectorAbort) && aborts.Add(1) <= 2 {
					err = nil
				}
				if err != nil {
					return err
				}
				rounds.Add(1)
			}
		})
	}
	var imports errgroup.Group
	for importer := range 2 {
		imports.Go(func() error {
			for n := 0; n < 8 || rounds.Load() < 24; n++ {
				options := c.options(t, root)
				options.GCRoot = fmt.Sprint("test/", importer)
				if _, err := Import(t.Context(), options); err != nil {
					return err
				}
				for _, info := range c.paths {
					if _, err := os.Lstat(filepath.Join(root, info.Path)); err != nil {
						return fmt.Errorf("after an import: %w", err)
					}
				}
				if importer == 0 {
					continue // its root stays
				}
				if err := os.RemoveAll(filepath.Join(root, gcRootsDir, options.GCRoot)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := imports.Wait(); err != nil {
		t.Error(err)
	}
	close(over)
	if err := nixes.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d Nix commands meanwhile", rounds.Load())
	checkContents(t, c, root)
	verifyStore(t, root)
	if temp := leftovers(t, root); len(temp) > 0 {
		t.Errorf("left behind: %v", temp)
	}
}

// nixCollectorAbort is what one collection in some hundred ends with in Nix 2.8
// when clients of its socket come and go, Nix's own ones included: it gives up a
// thread that it has not waited for (src/libstore/gc.cc).
const nixCollectorAbort = "terminate called without an active exception"

// leftovers are the files that only an import needs while it runs.
func leftovers(t *testing.T, root string) []string {
	t.Helper()
	var names []string
	for _, pattern := range []string{"nix/store/*.lock", "nix/store/*" + tempSuffix, tempRootsDir + "/*", stateDir + "/tmp-*", gcRootsDir + "/tmp-*"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		check(t, err)
		names = append(names, found...)
	}
	return names
}

// The same from the beginning: while an import makes a store, Nix opens it.
func TestImportWhileNixMakesStore(t *testing.T) {
	c := newTestClosure(t)
	for range 5 {
		root := filepath.Join(t.TempDir(), "root")
		var group errgroup.Group
		for n := range 2 {
			group.Go(func() error {
				options := c.options(t, root)
				options.GCRoot = fmt.Sprint(n)
				_, err := Import(t.Context(), options)
				return err
			})
		}
		group.Go(func() error { return tryNix(t.Context(), "", "nix-store", "--store", root, "--gc") })
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		checkTrees(t, c, root)
		verifyStore(t, root)
		if got := nix(t, "nix-store", "--store", root, "--query", "--requisites", pathA); strings.Count(got, "\n") != 2 {
			t.Errorf("requisites:\n%s", got)
		}
	}
}

// A store that Nix makes between an import's look at it and its end is joined.
func TestImportJoinsStore(t *testing.T) {
	c := newTestClosure(t)
	root := filepath.Join(t.TempDir(), "root")
	file := filepath.Join(t.TempDir(), "added")
	check(t, os.WriteFile(file, nil, 0o644))
	var added string
	options := c.options(t, root)
	options.Progress = func(p Progress) {
		if p.Phase == PhasePlace && p.Paths == 2 {
			added = strings.TrimSpace(nix(t, "nix-store", "--store", root, "--add", file))
			nix(t, "nix-store", "--store", root, "--gc", "--print-live") // reads the store, too
		}
	}
	if _, err := Import(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	all := nix(t, "nix-store", "--store", root, "--dump-db")
	for _, path := range append([]string{added}, paths(c.paths)...) {
		if !strings.Contains(all, path+"\n") {
			t.Errorf("%s is not valid", path)
		}
	}
	verifyStore(t, root)
}

// What keeps an import from going on is waited for, reported after a while, and
// given up with the context.
func TestImportWaits(t *testing.T) {
	c := newTestClosure(t)
	other := &testClosure{root: filepath.Join(t.TempDir(), "other"), info: t.TempDir()}
	other.add(t, "/nix/store/77777777777777777777777777777777-before", "before")
	other.write(t)
	tests := []struct{ name, file, want string }{
		{"migration", bigLockFile, "the lock of the store below ROOT"},
		{"path", "nix/store/" + baseName(pathA) + ".lock", "the lock of " + pathA},
		{"garbage collector", gcLockFile, "the garbage collector"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			root := filepath.Join(t.TempDir(), "root")
			if _, err := Import(t.Context(), other.options(t, root)); err != nil {
				t.Fatal(err)
			}
			before := listing(t, root)
			f, err := os.OpenFile(filepath.Join(root, test.file), os.O_RDWR|os.O_CREATE, 0o600)
			check(t, err)
			check(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			var reported []string
			options := c.options(t, root)
			options.Progress = func(p Progress) {
				if p.Waiting != "" {
					reported = append(reported, p.Waiting)
					cancel()
				}
			}
			_, err = Import(ctx, options)
			want := strings.ReplaceAll(test.want, "ROOT", root)
			if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "wait for "+want) {
				t.Errorf("err = %v", err)
			}
			if !slices.Equal(reported, []string{want}) {
				t.Errorf("reported %q, want %q", reported, want)
			}
			if test.file != gcLockFile {
				check(t, os.Remove(f.Name()))
			}
			check(t, f.Close())
			if test.name == "migration" {
				before = slices.DeleteFunc(before, func(s string) bool { return strings.Contains(s, "big-lock") })
			}
			if diff := cmp.Diff(before, listing(t, root)); diff != "" {
				t.Errorf("the store has changed:\n%s", diff)
			}
			if _, err := Import(t.Context(), options); err != nil {
				t.Error(err)
			}
			verifyStore(t, root)
		})
	}
}

// A lock file that its holder removes is not the one to lock.
func TestPathLockRemoved(t *testing.T) {
	dir := t.TempDir()
	store, err := os.Open(dir)
	check(t, err)
	defer store.Close()
	report := patience{report: func(string) {}}
	first := &pathLocks{patience: report, store: int(store.Fd())}
	check(t, first.acquire(t.Context(), []string{"a", "b"}))
	// A waiter has opened the file before it is removed.
	waiter, err := os.Open(filepath.Join(dir, "b.lock"))
	check(t, err)
	defer waiter.Close()
	var group errgroup.Group
	second := &pathLocks{patience: report, store: int(store.Fd())}
	group.Go(func() error { return second.acquire(t.Context(), []string{"a", "b"}) })
	check(t, first.release())
	check(t, group.Wait())
	if info, err := waiter.Stat(); err != nil || info.Size() == 0 {
		t.Errorf("a waiter cannot see that the file has been removed: %v", err)
	}
	check(t, second.release())
	if names := listing(t, dir); len(names) != 1 {
		t.Errorf("left behind: %q", names)
	}
}

func TestOpenFilesLimit(t *testing.T) {
	err := checkOpenFiles(1 << 40)
	if err == nil || !strings.Contains(err.Error(), "\nhint: ") {
		t.Errorf("err = %v, want one with a hint", err)
	}
	check(t, checkOpenFiles(10))
}

// A path that Nix builds while it is imported is made by one of them, and both
// succeed.
func TestImportBesideBuild(t *testing.T) {
	shell := "/bin/bash-static"
	if _, err := os.Stat(shell); err != nil {
		missing(t, err)
	}
	expression := filepath.Join(t.TempDir(), "built.nix")
	check(t, os.WriteFile(expression, []byte(`derivation {
		name = "built"; system = "x86_64-linux"; builder = builtins.path { path = `+shell+`; name = "shell"; };
		args = [ "-c" "for i in {1..1000}; do echo $i >>$out; done" ];
	}`), 0o644))
	source, root := filepath.Join(t.TempDir(), "source"), filepath.Join(t.TempDir(), "root")
	build := func(root string) error {
		return tryNix(t.Context(), "", "nix-build", "--store", root, "--no-out-link", "--option", "substituters", "", expression)
	}
	if err := build(source); err != nil {
		missing(t, err) // no sandbox, for instance
	}
	c := closureOf(t, source)
	for range 5 {
		var both errgroup.Group
		both.Go(func() error { return build(root) })
		for range 2 {
			both.Go(func() error {
				_, err := Import(t.Context(), c.options(t, root))
				return err
			})
		}
		check(t, both.Wait())
		checkContents(t, c, root)
		verifyStore(t, root)
		nix(t, "nix-store", "--store", root, "--gc")
	}
}
