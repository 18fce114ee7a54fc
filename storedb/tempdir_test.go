package storedb

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

func TestIsTempName(t *testing.T) {
	const hash = "00000000000000000000000000000000"
	for name, want := range map[string]bool{
		hash + tempSuffix:                     true,
		hash + "-vm-test-run" + tempSuffix:    false,
		hash + tempSuffix + "-x":              false,
		hash[1:] + tempSuffix:                 false,
		"e" + hash[1:] + tempSuffix:           false, // not a digit of Nix's
		tempSuffix:                            false,
		hash + "-vm-test-run-vm-test":         false,
		hash + "-x.drv" + tempSuffix + ".drv": false,
	} {
		if isTempName(name) != want {
			t.Errorf("%s: %v, want %v", name, !want, want)
		}
	}
}

// Paths that have the name of an import's directory, or end like one, stay if
// they are valid or not what an import makes.
func TestImportKeepsTempNames(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	valid := &testClosure{root: filepath.Join(t.TempDir(), "valid"), info: t.TempDir()}
	valid.add(t, "/nix/store/"+strings.Repeat("1", 32)+tempSuffix, dir{"file": "x"})
	valid.add(t, "/nix/store/"+strings.Repeat("2", 32)+tempSuffix, "file")
	valid.add(t, "/nix/store/"+strings.Repeat("3", 32)+tempSuffix, symlink("/nowhere"))
	valid.add(t, "/nix/store/"+strings.Repeat("4", 32)+tempSuffix, dir{"mode": "changed"})
	valid.add(t, "/nix/store/"+strings.Repeat("5", 32)+"-vm-test-run"+tempSuffix, dir{"file": "x"})
	valid.write(t)
	_, err := Import(t.Context(), valid.options(t, root))
	check(t, err)
	check(t, os.Chmod(filepath.Join(root, valid.paths[3].Path), tempMode))
	// Others are not valid.
	stays := []string{filepath.Join(root, storeDir, strings.Repeat("6", 32)+tempSuffix)}
	check(t, os.MkdirAll(stays[0]+"/x", 0o755))
	check(t, os.Chmod(stays[0], 0o755))
	if os.Geteuid() == 0 {
		stays = append(stays, filepath.Join(root, storeDir, strings.Repeat("7", 32)+tempSuffix))
		check(t, os.MkdirAll(stays[1]+"/x", tempMode))
		check(t, os.Chown(stays[1], 30001, 30000))
	}
	goes := filepath.Join(root, storeDir, strings.Repeat("8", 32)+tempSuffix)
	check(t, os.MkdirAll(goes+"/x", tempMode))

	c := newTestClosure(t)
	_, err = Import(t.Context(), c.options(t, root))
	check(t, err)
	checkContents(t, valid, root)
	for _, name := range stays {
		if _, err := os.Lstat(name + "/x"); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(goes); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what an import has left is still there: %v", err)
	}
	if _, err := Import(t.Context(), filesOptions(t, &archives{c: c}, root)); err != nil {
		t.Fatal(err)
	}
	checkContents(t, valid, root)
}

// What is another user's is not taken up.
func TestResumeOnlyOwn(t *testing.T) {
	if os.Geteuid() != 0 {
		missing(t, "only root can give files to others")
	}
	c := newTestClosure(t)
	root := filepath.Join(t.TempDir(), "root")
	if _, err := Import(t.Context(), filesOptions(t, &archives{c: c, limit: 5}, root)); !errors.Is(err, errLimit) {
		t.Fatalf("err = %v", err)
	}
	kept, err := filepath.Glob(filepath.Join(root, storeDir, "*"+tempSuffix, "*"))
	check(t, err)
	check(t, os.Lchown(kept[0], 30001, 30000))
	summary, err := Import(t.Context(), filesOptions(t, &archives{c: c}, root))
	check(t, err)
	if summary.Resumed != len(kept)-1 {
		t.Errorf("%d of %d paths taken up", summary.Resumed, len(kept))
	}
	var st unix.Stat_t
	for _, info := range c.paths {
		check(t, unix.Lstat(filepath.Join(root, info.Path), &st))
		if !isOwn(st) {
			t.Errorf("%s belongs to user %d", info.Path, st.Uid)
		}
	}
}

// A rollback removes the database before the files that it calls valid, and no
// files if it cannot do that.
func TestRollbackDatabaseFirst(t *testing.T) {
	root := t.TempDir()
	store, err := os.Open(root)
	check(t, err)
	path := filepath.Join(root, "path")
	schema, db := filepath.Join(root, schemaFile), filepath.Join(root, databaseDir, databaseName)
	check(t, os.WriteFile(path, nil, 0o444))
	check(t, os.MkdirAll(schema, 0o755))
	d := &destination{root: root, fresh: true, store: store, published: []string{"path"}, created: []string{db, schema}}
	check(t, os.WriteFile(filepath.Join(schema, "x"), nil, 0o444)) // cannot be removed
	check(t, os.WriteFile(db, nil, 0o444))
	if err := d.rollback(false); err == nil {
		t.Error("the schema file is gone")
	}
	for _, name := range []string{path, db} {
		if _, err := os.Lstat(name); err != nil {
			t.Error(err)
		}
	}
	check(t, os.Remove(filepath.Join(schema, "x")))
	check(t, d.rollback(false))
	for _, name := range []string{path, db, schema} {
		if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	check(t, d.close())
}

// A collector that does not answer is asked again.
func TestSilentCollector(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{tempRootsDir, gcSocketDir} {
		check(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	r, _, err := openTempRoots(root, patience{report: func(string) {}})
	check(t, err)
	defer func() { check(t, r.close()) }()
	r.answerTime = 20 * time.Millisecond
	gc, err := os.Open(filepath.Join(root, gcLockFile))
	check(t, err)
	defer gc.Close()
	check(t, unix.Flock(int(gc.Fd()), unix.LOCK_EX))
	dir, err := os.Open(filepath.Join(root, gcSocketDir))
	check(t, err)
	defer dir.Close()
	t.Chdir(dir.Name()) // the path of a socket is short
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", "socket")
	check(t, err)
	defer listener.Close()
	var told []string
	var collector errgroup.Group
	collector.Go(func() error {
		silent, err := listener.Accept()
		if err != nil {
			return err
		}
		defer silent.Close()
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		defer conn.Close()
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			told = append(told, lines.Text())
			if _, err := io.WriteString(conn, "1"); err != nil {
				return err
			}
		}
		return nil
	})
	want := []string{pathA, pathB}
	check(t, r.add(t.Context(), want...))
	check(t, collector.Wait())
	if !slices.Equal(told, want) {
		t.Errorf("the collector was told %q, want %q", told, want)
	}
}
