package storedb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// storeWith makes a store in whose database the infos are valid.
func storeWith(t testing.TB, infos []PathInfo) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	_, err := CreateState(t.Context(), StateOptions{Root: root, Closure: &Closure{Name: "test", Paths: infos}})
	check(t, err)
	return root
}

var queryInfos = []PathInfo{
	{Path: pathA, NarHash: Hash{1}, NarSize: 120, Deriver: pathA + ".drv", References: []string{pathA, pathB}, Ultimate: true,
		Sigs: []string{"cache.example.org-1:" + strings.Repeat("A", 86) + "==", "b:AAAA"}, CA: "fixed:r:sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s"},
	{Path: pathB, NarHash: Hash{2}, References: []string{pathX}},
	{Path: pathX, NarHash: Hash{3}, NarSize: 8},
	{Path: pathY, NarHash: Hash{4}, NarSize: 8, References: []string{pathA, pathX, pathY}},
}

func TestQueryClosure(t *testing.T) {
	root := storeWith(t, queryInfos)
	tests := []struct {
		name  string
		paths []string
		want  []PathInfo
	}{
		{"nothing", nil, nil},
		{"leaf", []string{pathX}, queryInfos[2:3]},
		{"closure", []string{pathA}, queryInfos[:3]},
		{"all", []string{pathY, pathA, pathY}, queryInfos},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := QueryClosure(t.Context(), root, test.paths)
			check(t, err)
			if diff := cmp.Diff(test.want, c.Paths, cmpopts.IgnoreUnexported(PathInfo{}), cmpopts.EquateEmpty()); diff != "" || c.Name != root {
				t.Errorf("closure of %s: %s", c.Name, diff)
			}
		})
	}
	if names := names(t, filepath.Join(root, databaseDir)); slices.ContainsFunc(names, func(name string) bool { return strings.Contains(name, "-") && name != "big-lock" }) {
		t.Errorf("left behind: %v", names)
	}
}

// What Nix says of a store of its own.
func TestQueryClosureOfNix(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source")
	drv := strings.TrimSpace(nix(t, "nix-instantiate", "--store", source, "--expr",
		`derivation { name = "x"; system = "y"; builder = "/bin/sh"; args = [ (builtins.toFile "a" "b") ]; }`))
	c, err := QueryClosure(t.Context(), source, []string{drv})
	check(t, err)
	for _, info := range c.Paths {
		got := fmt.Sprintf("%s\n%s\n%d\n%s\n%d\n", info.Path, strings.TrimPrefix(databaseHash(info.NarHash), "sha256:"), info.NarSize, info.Deriver, len(info.References))
		for _, reference := range info.References {
			got += reference + "\n"
		}
		if dump := nix(t, "nix-store", "--store", source, "--dump-db"); !strings.Contains(dump, got) {
			t.Errorf("Nix says\n%s\nand not\n%s", dump, got)
		}
		if !strings.HasPrefix(info.CA, "text:sha256:") {
			t.Errorf("%s has content address %q", info.Path, info.CA)
		}
	}
	if len(c.Paths) != 2 {
		t.Errorf("paths %+v", c.Paths)
	}
}

func TestQueryClosureErrors(t *testing.T) {
	update := func(set string) func(*testing.T, string) {
		return func(t *testing.T, root string) {
			db, err := connect(filepath.Join(root, databaseDir, databaseName), "mode=rw")
			check(t, err)
			check(t, db.exec(t.Context(), "update ValidPaths set "+set+" where path = '"+pathB+"'"))
			check(t, db.Close())
		}
	}
	write := func(file, contents string) func(*testing.T, string) {
		return func(t *testing.T, root string) {
			check(t, os.WriteFile(filepath.Join(root, databaseDir, file), []byte(contents), 0o644))
		}
	}
	tests := []struct {
		name   string
		damage func(t *testing.T, root string)
		path   string
		want   string // ROOT, DB and PATH stand for the root of the store, its database and pathB
	}{
		{"path elsewhere", nil, "/etc", `/etc: "/etc" is not in /nix/store`},
		{"not valid", nil, pathZ, "DB: " + pathZ + " is not valid in the store below ROOT"},
		{"no store", func(t *testing.T, root string) { check(t, os.RemoveAll(root)) }, pathA, "ROOT/nix/var/nix/db: there is no store database"},
		{"old schema", write("schema", "7"), pathA, `ROOT/nix/var/nix/db/schema: the store has schema version "7", and only version 10 is supported`},
		{"no database", write(databaseName, "no database\n"+strings.Repeat("x", 8192)), pathA, "DB: not an SQLite database"},
		{"another database", func(t *testing.T, root string) {
			file := filepath.Join(root, databaseDir, databaseName)
			check(t, os.Remove(file))
			db, err := connect(file, "")
			check(t, err)
			check(t, db.exec(t.Context(), "create table t (x)"))
			check(t, db.Close())
		}, pathA, "DB: not the database of a Nix store: there is no "},
		{"cut off", func(t *testing.T, root string) {
			check(t, os.Truncate(filepath.Join(root, databaseDir, databaseName), 3*4096))
		}, pathA, "DB: corrupt: database disk image is malformed"},
		{"overwritten", func(t *testing.T, root string) {
			f, err := os.OpenFile(filepath.Join(root, databaseDir, databaseName), os.O_RDWR, 0)
			check(t, err)
			defer f.Close()
			for page := int64(1); page < 10; page++ {
				_, err = f.WriteAt([]byte{7, 7, 7, 7}, page*4096)
				check(t, err)
			}
		}, pathA, "DB: corrupt: database disk image is malformed"},
		{"locked", func(t *testing.T, root string) {
			// Without a write-ahead log, readers wait for writers.
			db, err := connect(filepath.Join(root, databaseDir, databaseName), "mode=rw")
			check(t, err)
			check(t, db.exec(t.Context(), "pragma journal_mode = truncate"))
			check(t, db.exec(t.Context(), "begin exclusive"))
			t.Cleanup(func() { check(t, db.Close()) })
		}, pathA, "DB: locked by another process"},
		{"dangling reference", func(t *testing.T, root string) {
			db, err := connect(filepath.Join(root, databaseDir, databaseName), "mode=rw&_foreign_keys=0")
			check(t, err)
			check(t, db.exec(t.Context(), "insert into Refs values (2, 77)"))
			check(t, db.Close())
		}, pathA, "DB: table Refs: PATH refers to row 77 of ValidPaths, which does not exist"},
		{"garbage path", update("path = '/nix/store/../etc'"), pathA, `DB: table ValidPaths: row 2: path "/nix/store/../etc" is not a store path`},
		{"path of bytes", update("path = x'00'"), pathA, "DB: table ValidPaths: row 2: path: value of type []uint8"},
		{"garbage hash", update("hash = 'sha256:zz'"), pathA, `DB: table ValidPaths: PATH: hash "sha256:zz" is not a SHA-256 hash`},
		{"bare hash", update("hash = substr(hash, 8)"), pathA, `DB: table ValidPaths: PATH: hash "0200`},
		{"another algorithm", update("hash = 'sha512:00'"), pathA, `DB: table ValidPaths: PATH: hash "sha512:00" is not a SHA-256 hash`},
		{"garbage size", update("narSize = 'x'"), pathA, "DB: table ValidPaths: row 2: narSize: value of type string"},
		{"negative size", update("narSize = -1"), pathA, "DB: table ValidPaths: PATH: narSize -1"},
		{"garbage deriver", update("deriver = '/tmp/x.drv'"), pathA, `DB: table ValidPaths: PATH: deriver "/tmp/x.drv" is not in /nix/store`},
		{"deriver that is none", update("deriver = '" + pathX + "'"), pathA, "DB: table ValidPaths: PATH: deriver \"" + pathX + "\" does not end in .drv"},
		{"garbage signature", update("sigs = 'a:AAAA b'"), pathA, `DB: table ValidPaths: PATH: signature "b" does not have the form NAME:BASE64`},
		{"garbage content address", update("ca = 'x:y'"), pathA, `DB: table ValidPaths: PATH: content address "x:y" is of an unknown kind`},
		{"content address without hash", update("ca = 'fixed:r:sha256:'"), pathA, `DB: table ValidPaths: PATH: content address "fixed:r:sha256:" does not end in a hash`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := storeWith(t, queryInfos)
			if test.damage != nil {
				test.damage(t, root)
			}
			ctx := t.Context()
			if test.name == "locked" {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
				defer cancel()
			}
			_, err := QueryClosure(ctx, root, []string{test.path})
			want := strings.NewReplacer("ROOT", root, "DB", filepath.Join(root, databaseDir, databaseName), "PATH", pathB).Replace(test.want)
			if input := new(InputError); !errors.As(err, &input) || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

// A user who may not write to the database reads it whatever state it is in.
func TestQueryClosureReadOnly(t *testing.T) {
	if root := os.Getenv("STOREDB_TEST_QUERY"); root != "" {
		c, err := QueryClosure(t.Context(), root, []string{pathA})
		check(t, err)
		if len(c.Paths) != 3 {
			t.Fatalf("paths %+v", c.Paths)
		}
		return
	}
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("not root")
		}
		t.Skip("only root can become another user")
	}
	hold := func(t *testing.T, file string) *database {
		db, err := openDatabase(t.Context(), file)
		check(t, err)
		// What is read is in the log.
		check(t, db.exec(t.Context(), "update ValidPaths set narSize = 9 where path = '"+pathX+"'"))
		return db
	}
	tests := []struct {
		name  string
		state func(t *testing.T, file string)
	}{
		{"unused", func(*testing.T, string) {}},
		{"used by Nix 2.22 before", func(t *testing.T, file string) { check(t, hold(t, file).Close()) }},
		{"in use", func(t *testing.T, file string) {
			db := hold(t, file)
			t.Cleanup(func() { check(t, db.Close()) })
		}},
		{"user killed", func(t *testing.T, file string) {
			db := hold(t, file)
			for _, suffix := range []string{"", "-wal", "-shm"} {
				copyTree(t, file+suffix, file+suffix+".copy")
			}
			check(t, db.Close())
			for _, suffix := range []string{"", "-wal", "-shm"} {
				check(t, os.Rename(file+suffix+".copy", file+suffix))
			}
		}},
		{"no log", func(t *testing.T, file string) {
			db, err := connect(file, "mode=rw")
			check(t, err)
			check(t, db.exec(t.Context(), "pragma journal_mode = truncate"))
			check(t, db.Close())
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			// Others may not look into a test's temporary directory.
			dir, err := os.MkdirTemp("", "storedb")
			check(t, err)
			t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
			check(t, os.Chmod(dir, 0o755))
			root := filepath.Join(dir, "root")
			_, err = CreateState(t.Context(), StateOptions{Root: root, Closure: &Closure{Name: "test", Paths: queryInfos}})
			check(t, err)
			test.state(t, filepath.Join(root, databaseDir, databaseName))
			binary, err := os.Executable()
			check(t, err)
			copyTree(t, binary, filepath.Join(dir, "test"))
			before := names(t, filepath.Join(root, databaseDir))

			cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "test"), "-test.run", "^TestQueryClosureReadOnly$")
			cmd.Dir = "/"
			cmd.Env = []string{"STOREDB_TEST_QUERY=" + root}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			if after := names(t, filepath.Join(root, databaseDir)); !slices.Equal(before, after) {
				t.Errorf("files before: %v, after: %v", before, after)
			}
		})
	}
}

// Readers do not wait for writers, and see what has been committed.
func TestQueryClosureDuringWrite(t *testing.T) {
	root := storeWith(t, queryInfos)
	db, err := openDatabase(t.Context(), filepath.Join(root, databaseDir, databaseName))
	check(t, err)
	tx, err := db.begin(t.Context())
	check(t, err)
	check(t, tx.exec(t.Context(), "delete from Refs"))
	c, err := QueryClosure(t.Context(), root, []string{pathY})
	check(t, err)
	if len(c.Paths) != 4 {
		t.Errorf("paths %+v", c.Paths)
	}
	// Another writer waits as long as it is let.
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	other, err := openDatabase(ctx, db.file)
	check(t, err)
	_, err = other.begin(ctx)
	if input := new(InputError); !errors.As(err, &input) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v", err)
	}
	check(t, other.Close())
	tx.Rollback()
	check(t, db.Close())
	if _, err := os.Stat(db.file + "-wal"); errors.Is(err, fs.ErrNotExist) {
		t.Error("the log was removed, which others may need")
	}
}

func BenchmarkQueryClosure(b *testing.B) {
	for _, n := range []int{3000, 100000} {
		infos, err := ParseRegistration(strings.NewReader(string(fakeRegistration(n))), "registration")
		check(b, err)
		root := storeWith(b, infos)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				c, err := QueryClosure(b.Context(), root, paths(infos))
				check(b, err)
				if len(c.Paths) != n {
					b.Fatal(len(c.Paths))
				}
			}
		})
	}
}
