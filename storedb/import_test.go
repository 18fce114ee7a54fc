package storedb

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vm-prebuild/nar"
)

func TestImport(t *testing.T) {
	c := newTestClosure(t)
	for _, method := range []Method{MethodAuto, MethodCopy} {
		t.Run(string(method), func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "not", "there", "yet")
			options := c.options(t, root)
			options.Method = method
			options.Verify = VerifyHash
			summary, err := Import(t.Context(), options)
			if err != nil {
				t.Fatal(err)
			}
			if summary.Paths != len(c.paths) || summary.Placed != len(c.paths) || summary.AlreadyValid != 0 {
				t.Errorf("summary %+v, want %d paths placed", summary, len(c.paths))
			}
			if n := summary.Copied + summary.Reflinked; n != 73 || summary.HardLinked != 2 {
				t.Errorf("%d files and %d hard links, want 73 and 2", n, summary.HardLinked)
			}
			checkTrees(t, c, root)
			checkMetadata(t, filepath.Join(root, storeDir))
		})
	}
}

// checkContents compares contents with what is registered.
func checkContents(t *testing.T, c *testClosure, root string) {
	t.Helper()
	for _, info := range c.paths {
		hash, size, err := nar.Hash(t.Context(), filepath.Join(root, info.Path))
		if err != nil {
			t.Fatal(err)
		}
		if hash != info.NarHash || size != info.NarSize {
			t.Errorf("%s differs", info.Path)
		}
	}
}

// checkTrees checks the contents of what one import has placed, and that files
// share inodes as in the source.
func checkTrees(t *testing.T, c *testClosure, root string) {
	t.Helper()
	checkContents(t, c, root)
	inodes := map[uint64]bool{}
	for _, file := range []string{pathB + "/same", pathA + "/same", pathA + "/again"} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(root, file), &st); err != nil {
			t.Fatal(err)
		}
		inodes[st.Ino] = true
	}
	if len(inodes) != 1 {
		t.Errorf("files that share an inode in the source have %d here", len(inodes))
	}
}

// checkMetadata makes sure that all below the store directory is canonical and
// nothing is left over.
func checkMetadata(t *testing.T, store string) {
	t.Helper()
	entries, err := os.ReadDir(store)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() == ".links" {
			continue
		}
		if err := CheckStorePath(StoreDir + "/" + entry.Name()); err != nil {
			t.Error(err)
		}
		err := filepath.WalkDir(filepath.Join(store, entry.Name()), func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			mode := info.Mode()
			if mode != 0o444 && mode != 0o555 && mode != fs.ModeDir|0o555 && mode&fs.ModeType != fs.ModeSymlink {
				t.Errorf("%s has mode %v", path, mode)
			}
			if sec := info.ModTime().UnixNano(); sec != 1e9 {
				t.Errorf("%s was modified %v", path, info.ModTime())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// What Nix reads from an imported store is what it reads from one that it has
// registered itself.
func TestImportEqualsNix(t *testing.T) {
	c := newTestClosure(t)
	root := filepath.Join(t.TempDir(), "root")
	if _, err := Import(t.Context(), c.options(t, root)); err != nil {
		t.Fatal(err)
	}
	state := listing(t, filepath.Join(root, "nix/var/nix/db"))
	verifyStore(t, root)
	got := nix(t, "nix-store", "--dump-db", "--store", root)

	reference := filepath.Join(t.TempDir(), "reference")
	nix(t, "sh", "-c", "nix-store --load-db --store "+reference+" < "+filepath.Join(c.info, registrationFile))
	want := nix(t, "nix-store", "--dump-db", "--store", reference)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, query := range []string{"--references", "--referrers", "--requisites", "--size", "--hash"} {
		got := nix(t, "nix-store", "--store", root, "--query", query, pathA)
		want := nix(t, "nix-store", "--store", reference, "--query", query, pathA)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
	}
	// Nix has found nothing to migrate.
	for _, line := range state {
		if now := listing(t, filepath.Join(root, "nix/var/nix/db")); strings.Contains(line, "schema ") && !slices.Contains(now, line) {
			t.Errorf("Nix has rewritten %s", line)
		}
	}
	if got := queryString(t, root, "select group_concat(migration) from SchemaMigrations"); got != "20260309-drop-redundant-indexreferrer" {
		t.Errorf("migrations %q", got)
	}
	if got := queryString(t, root, "pragma journal_mode"); got != "wal" {
		t.Errorf("journal mode %q", got)
	}
	if got := queryString(t, root, "pragma foreign_key_check"); got != "" {
		t.Errorf("foreign key of %q is dangling", got)
	}
	if got := queryString(t, root, "pragma integrity_check"); got != "ok" {
		t.Errorf("integrity check: %s", got)
	}
}

// queryString returns the first value of the first row, or nothing.
func queryString(t *testing.T, root, query string) string {
	t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(root, databaseDir, databaseName))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var s string
	if err := db.QueryRowContext(t.Context(), query).Scan(&s); err != nil && !errors.Is(err, sql.ErrNoRows) && !strings.Contains(err.Error(), "expected") {
		t.Fatal(err)
	}
	return s
}

func TestImportTwice(t *testing.T) {
	c := newTestClosure(t)
	root := t.TempDir() // exists, and is empty
	if _, err := Import(t.Context(), c.options(t, root)); err != nil {
		t.Fatal(err)
	}
	before := listing(t, filepath.Join(root, storeDir))
	options := c.options(t, root)
	options.From = "/nowhere" // no file is looked at
	summary, err := Import(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	if summary.AlreadyValid != len(c.paths) || summary.Placed != 0 || summary.NarBytes != 0 {
		t.Errorf("summary %+v", summary)
	}
	if diff := cmp.Diff(before, listing(t, filepath.Join(root, storeDir))); diff != "" {
		t.Error(diff)
	}
}

// A closure that a store has a part of, made and registered by Nix.
func TestImportIntoNixStore(t *testing.T) {
	c := newTestClosure(t)
	root := filepath.Join(t.TempDir(), "root")
	file := filepath.Join(t.TempDir(), "added")
	if err := os.WriteFile(file, []byte("by Nix"), 0o644); err != nil {
		t.Fatal(err)
	}
	added := strings.TrimSpace(nix(t, "nix-store", "--store", root, "--add", file))
	first := nix(t, "nix-store", "--store", root, "--dump-db")

	c.add(t, added, "by Nix")
	c.add(t, "/nix/store/66666666666666666666666666666666-refers", "x", added)
	c.write(t)
	summary, err := Import(t.Context(), c.options(t, root))
	if err != nil {
		t.Fatal(err)
	}
	if summary.AlreadyValid != 1 || summary.Placed != len(c.paths)-1 {
		t.Errorf("summary %+v", summary)
	}
	verifyStore(t, root)
	if all := nix(t, "nix-store", "--store", root, "--dump-db"); !strings.Contains(all, first) {
		t.Errorf("the path that Nix had added is not as before:\n%s", all)
	}
	if got := nix(t, "nix-store", "--store", root, "--query", "--referrers", added); got != "/nix/store/66666666666666666666666666666666-refers\n" {
		t.Errorf("referrers %q", got)
	}
}

// Derivations have rows for their outputs, and Nix can realise those.
func TestImportDerivations(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source")
	expression := `let a = builtins.toFile "a" "x"; b = builtins.toFile "b" "see ${a}"; in derivation {
		name = "top"; system = "x86_64-linux"; builder = "/bin/sh"; outputs = [ "out" "dev" ];
		dependency = derivation { name = "dependency"; system = "x86_64-linux"; builder = "/bin/sh"; source = b; };
		fixed = derivation { name = "fixed"; system = "x86_64-linux"; builder = "/bin/sh"; outputHashAlgo = "sha256";
			outputHashMode = "flat"; outputHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"; };
	}`
	drv := strings.TrimSpace(nix(t, "nix-instantiate", "--store", source, "--expr", expression))
	c := closureOf(t, source)
	root := filepath.Join(t.TempDir(), "root")
	if _, err := Import(t.Context(), c.options(t, root)); err != nil {
		t.Fatal(err)
	}
	verifyStore(t, root)
	for _, query := range []string{"--outputs", "--requisites", "--hash", "--size"} {
		got := nix(t, "nix-store", "--store", root, "--query", query, drv)
		want := nix(t, "nix-store", "--store", source, "--query", query, drv)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
	}
	if got, want := queryString(t, root, outputRows), queryString(t, source, outputRows); got != want || strings.Count(got, "\n") != 3 {
		t.Errorf("outputs:\n%s\nwant:\n%s", got, want)
	}
}

const outputRows = `select group_concat(line, char(10)) from (
	select v.path || ' ' || o.id || ' ' || o.path as line from DerivationOutputs o join ValidPaths v on v.id = o.drv order by line)`

// closureOf makes the closureInfo of all that is valid in a store.
func closureOf(t *testing.T, root string) *testClosure {
	t.Helper()
	infos, err := ParseRegistration(strings.NewReader(nix(t, "nix-store", "--store", root, "--dump-db")), "dump")
	if err != nil {
		t.Fatal(err)
	}
	c := &testClosure{root: root, info: t.TempDir(), paths: infos}
	c.write(t)
	return c
}

// After an error the destination is what it was before: missing, empty, or a
// store.
func TestImportFailures(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, c *testClosure, o *Options)
		want  string // part of the message
		code  int    // of an error that decides the exit code
	}{
		{"path missing in the source", func(t *testing.T, c *testClosure, _ *Options) {
			check(t, os.Rename(c.file(pathA), c.file(pathA)+"x"))
		}, ":1: " + pathA + " is not in the store ", 2},
		{"no source", func(_ *testing.T, _ *testClosure, o *Options) { o.From = "/nonexistent" }, "/nonexistent/nix/store: no such directory", 2},
		{"dangling reference", func(t *testing.T, c *testClosure, o *Options) {
			c.add(t, "/nix/store/66666666666666666666666666666666-x", "x", pathC)
			c.write(t)
			o.Closure = c.read(t)
		}, "refers to " + pathC + ", which is neither in this closure nor valid in the store", 2},
		{"fifo in the source", func(t *testing.T, c *testClosure, _ *Options) {
			check(t, syscall.Mkfifo(c.file(pathB)+"/share/a/fifo", 0o644))
		}, "-b/share/a/fifo: not a regular file, directory or symbolic link", 0},
		{"modified contents", func(t *testing.T, c *testClosure, o *Options) {
			o.Verify = VerifyHash
			check(t, os.WriteFile(c.file(pathB)+"/share/large", []byte("other"), 0o644))
		}, pathB + " was modified", 1},
		{"not a derivation", func(t *testing.T, c *testClosure, o *Options) {
			c.add(t, pathC, "Derive(nonsense")
			c.write(t)
			o.Closure = c.read(t)
		}, "read outputs of derivation " + pathC, 0},
		{"cancelled", func(_ *testing.T, _ *testClosure, o *Options) { o.Jobs = 1 }, "context canceled", 0},
	}
	for _, test := range tests {
		for _, state := range []string{"missing", "empty", "store"} {
			t.Run(test.name+"/"+state, func(t *testing.T) {
				c := newTestClosure(t)
				parent := t.TempDir()
				root := filepath.Join(parent, "a", "root")
				switch state {
				case "empty":
					check(t, os.MkdirAll(root, 0o755))
				case "store":
					other := &testClosure{root: filepath.Join(t.TempDir(), "other"), info: t.TempDir()}
					other.add(t, "/nix/store/77777777777777777777777777777777-before", "before")
					other.write(t)
					_, err := Import(t.Context(), other.options(t, root))
					check(t, err)
				}
				before := listing(t, root)
				options := c.options(t, root)
				test.spoil(t, c, &options)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				options.Progress = func(p Progress) {
					if test.name == "cancelled" && p.Paths == 3 {
						cancel()
					}
				}
				_, err := Import(ctx, options)
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("err = %v, want one with %q", err, test.want)
				}
				var coder interface{ ExitCode() int }
				code := 0
				if errors.As(err, &coder) {
					code = coder.ExitCode()
				}
				if code != test.code {
					t.Errorf("exit code %d, want %d", code, test.code)
				}
				if state == "missing" {
					if entries, err := os.ReadDir(parent); err != nil || len(entries) != 0 {
						t.Errorf("left behind: %v, %v", entries, err)
					}
				}
				if diff := cmp.Diff(before, listing(t, root)); diff != "" {
					t.Errorf("the destination has changed:\n%s", diff)
				}
			})
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A file system that cannot share data with the source's: MethodReflink says
// so, MethodAuto copies.
func TestImportFromOtherFileSystem(t *testing.T) {
	source, err := os.MkdirTemp("/dev/shm", "storedb-test-")
	if err != nil {
		missing(t, err)
	}
	t.Cleanup(func() { check(t, os.RemoveAll(source)) })
	var here, there unix.Stat_t
	check(t, unix.Stat(source, &there))
	check(t, unix.Stat(t.TempDir(), &here))
	if here.Dev == there.Dev {
		missing(t, "/dev/shm and the temporary directory are one file system")
	}
	c := &testClosure{root: source, info: t.TempDir()}
	c.add(t, pathA, dir{"small": "x", "large": strings.Repeat("y", 1<<20)})
	c.write(t)
	root := filepath.Join(t.TempDir(), "root")
	options := c.options(t, root)
	options.Method = MethodReflink
	if _, err := Import(t.Context(), options); !errors.Is(err, unix.EXDEV) || !strings.Contains(err.Error(), "\nhint: ") {
		t.Errorf("err = %v, want %v with a hint", err, unix.EXDEV)
	}
	options.Method = MethodAuto
	options.Verify = VerifyHash
	summary, err := Import(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	if summary.Copied != 2 || summary.Reflinked != 0 {
		t.Errorf("summary %+v, want 2 files copied", summary)
	}
}

func TestImportDestinations(t *testing.T) {
	c := newTestClosure(t)
	tests := []struct {
		name string
		make func(t *testing.T, root string)
		want string // error, with ROOT for the root; empty if there is none
	}{
		{"empty database directory", func(t *testing.T, root string) { check(t, os.MkdirAll(root+"/nix/var/nix/db", 0o755)) }, ""},
		{"junk where a path belongs", func(t *testing.T, root string) {
			check(t, os.MkdirAll(root+pathA+"/junk", 0o555))
			check(t, os.WriteFile(root+pathB, nil, 0o444))
		}, ""},
		{"leftovers", func(t *testing.T, root string) {
			check(t, os.MkdirAll(root+"/nix/store", 0o755))
			check(t, os.MkdirAll(root+"/nix/store/"+"00000000000000000000000000000000"+tempSuffix+"/x", tempMode))
			check(t, os.MkdirAll(root+"/"+newDatabaseDir, 0o755))
		}, ""},
		{"root is a symbolic link", func(t *testing.T, root string) { check(t, os.Symlink(t.TempDir(), root)) }, ""},
		{"root is a file", func(t *testing.T, root string) { check(t, os.WriteFile(root, nil, 0o644)) }, "ROOT: not a directory"},
		{"store is a symbolic link", func(t *testing.T, root string) {
			check(t, os.MkdirAll(root+"/nix", 0o755))
			check(t, os.Symlink("/tmp", root+"/nix/store"))
		}, "ROOT/nix/store: not a directory\nhint: a store and the directories on the way to it must not be symbolic links"},
		{"newer schema", func(t *testing.T, root string) {
			check(t, os.MkdirAll(root+"/nix/var/nix/db", 0o755))
			check(t, os.WriteFile(root+"/nix/var/nix/db/schema", []byte("11"), 0o644))
		}, `ROOT/nix/var/nix/db/schema: the store has schema version "11", and only version 10 is supported`},
		{"unfinished database", func(t *testing.T, root string) {
			check(t, os.MkdirAll(root+"/nix/var/nix/db", 0o755))
			check(t, os.WriteFile(root+"/nix/var/nix/db/db.sqlite", nil, 0o644))
		}, ""},
		{"log of a lost database", func(t *testing.T, root string) {
			check(t, os.MkdirAll(root+"/nix/var/nix/db", 0o755))
			check(t, os.WriteFile(root+"/nix/var/nix/db/db.sqlite-wal", []byte("x"), 0o644))
		}, "ROOT/nix/var/nix/db/db.sqlite-wal: the log of a database that is not there"},
		{"database that is none", func(t *testing.T, root string) {
			check(t, os.MkdirAll(root+"/nix/var/nix/db", 0o755))
			check(t, os.WriteFile(root+"/nix/var/nix/db/schema", []byte("10"), 0o644))
			check(t, os.WriteFile(root+"/nix/var/nix/db/db.sqlite", []byte(strings.Repeat("nonsense", 1000)), 0o644))
		}, "not an SQLite database"},
		{"the source itself", func(t *testing.T, root string) { check(t, os.Symlink(c.root, root)) }, "the source is this store itself"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			test.make(t, root)
			_, err := Import(t.Context(), c.options(t, root))
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				checkTrees(t, c, root)
				checkMetadata(t, filepath.Join(root, storeDir))
				real, err := filepath.EvalSymlinks(root) // Nix wants no links here
				check(t, err)
				verifyStore(t, real)
				return
			}
			if err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(test.want, "ROOT", root)) {
				t.Errorf("err = %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestImportDryRun(t *testing.T) {
	c := newTestClosure(t)
	root := filepath.Join(t.TempDir(), "root")
	options := c.options(t, root)
	options.DryRun = true
	summary, err := Import(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	if summary.Placed != len(c.paths) || !summary.DryRun {
		t.Errorf("summary %+v", summary)
	}
	if _, err := os.Lstat(root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a dry run has made %s: %v", root, err)
	}
	if _, err := Import(t.Context(), c.options(t, root)); err != nil {
		t.Fatal(err)
	}
	if summary, err = Import(t.Context(), options); err != nil || summary.AlreadyValid != len(c.paths) {
		t.Errorf("summary %+v, %v", summary, err)
	}
}

// Several imports at once into a store that does not exist: one makes it, and
// the others find all there.
func TestImportsWaitForEachOther(t *testing.T) {
	c := newTestClosure(t)
	root := filepath.Join(t.TempDir(), "root")
	var group errgroup.Group
	var placed atomic.Int64
	for range 4 {
		group.Go(func() error {
			summary, err := Import(t.Context(), c.options(t, root))
			placed.Add(int64(summary.Placed))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if int(placed.Load()) != len(c.paths) {
		t.Errorf("%d paths placed, want %d", placed.Load(), len(c.paths))
	}
	verifyStore(t, root)
}

// While Nix holds the lock it takes to migrate a database, an import waits, and
// ends with its context.
func TestImportWaitsForLock(t *testing.T) {
	c := newTestClosure(t)
	root := filepath.Join(t.TempDir(), "root")
	if _, err := Import(t.Context(), c.options(t, root)); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(root, databaseDir, "big-lock"))
	check(t, err)
	defer f.Close()
	check(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	ctx, cancel := context.WithCancel(t.Context())
	options := c.options(t, root)
	options.Progress = func(Progress) { cancel() } // it is about to lock
	if _, err := Import(ctx, options); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want %v", err, context.Canceled)
	}
}
