package storedb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Where things lie below the root of a store.
const (
	storeDir    = "nix/store"
	databaseDir = "nix/var/nix/db"
	// A new store's database is made here and moved when it is complete.
	newDatabaseDir = "nix/var/nix/" + tempPrefix + "db"
)

// stateDirs are the directories that Nix makes when it opens a store that does
// not have them, parents first. Several processes that open a new store at once
// get in each other's way doing so; here they find all of it.
var stateDirs = [...]string{
	"nix", storeDir, storeDir + "/.links",
	"nix/var", "nix/var/nix", "nix/var/nix/temproots",
	"nix/var/nix/gcroots", "nix/var/nix/gcroots/per-user",
	"nix/var/nix/profiles", "nix/var/nix/profiles/per-user",
	"nix/var/log", "nix/var/log/nix", "nix/var/log/nix/drvs",
}

// tempPrefix begins the names of what an import has not completed. No store
// path begins like it.
const tempPrefix = "tmp-vm-prebuild-"

// tempName is the name that path number i of an import has until all files of
// the closure are there.
func tempName(i int) string { return tempPrefix + strconv.Itoa(i) }

// lockPoll is how often a lock that somebody else holds is tried.
const lockPoll = 50 * time.Millisecond

// destination is a store that is being written to. An import holds a lock on
// its directory of store paths, so that no two write to it at once, and the
// shared lock on its database that every Nix process holds.
type destination struct {
	root    string
	store   *os.File // the directory of store paths
	bigLock *os.File // nil for a fresh store
	fresh   bool     // there is no database yet

	locked    bool     // store is ours
	created   []string // directories made by this import, parents first
	published []string // names in store that this import has completed
}

// openDestination makes the directories of the store below root, as far as they
// are missing, waits for its locks, and removes what a killed import has left.
func openDestination(ctx context.Context, root string) (*destination, error) {
	d := &destination{root: root}
	if err := d.open(ctx); err != nil {
		return nil, errors.Join(err, d.rollback(), d.close())
	}
	return d, nil
}

func (d *destination) open(ctx context.Context) error {
	if err := d.lockStore(ctx); err != nil {
		return err
	}
	exists, err := hasDatabase(d.root)
	if err != nil {
		return err
	}
	d.fresh = !exists
	if exists {
		d.bigLock, err = os.OpenFile(filepath.Join(d.root, databaseDir, "big-lock"), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return fmt.Errorf("lock store database: %w", err)
		}
		if err := lock(ctx, d.bigLock, unix.LOCK_SH); err != nil {
			return fmt.Errorf("lock store database: %w", err)
		}
	}
	return d.removeLeftovers()
}

// lockStore makes the directories and locks the one of store paths. An import
// that held the lock may have failed and removed the directories it had made,
// this one too: then all begins anew.
func (d *destination) lockStore(ctx context.Context) error {
	for {
		if err := d.makeDirs(); err != nil {
			return err
		}
		store, err := os.Open(filepath.Join(d.root, storeDir))
		if err != nil {
			return fmt.Errorf("open store: %w", err)
		}
		d.store = store
		if err := lock(ctx, store, unix.LOCK_EX); err != nil {
			d.created = nil // whoever holds the lock uses them
			return fmt.Errorf("lock store: %w", err)
		}
		locked, err := store.Stat()
		if err != nil {
			return fmt.Errorf("open store: %w", err)
		}
		found, err := os.Lstat(filepath.Join(d.root, storeDir))
		if err == nil && os.SameFile(locked, found) {
			d.locked = true
			return d.makeDirs()
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("open store: %w", err)
		}
		if err := store.Close(); err != nil {
			return fmt.Errorf("open store: %w", err)
		}
	}
}

// lock takes an advisory lock on f, waiting for it until ctx ends.
func lock(ctx context.Context, f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

// makeDirs makes the root, its parents and the directories of a store.
func (d *destination) makeDirs() error {
	var missing []string
	for dir := d.root; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, dir)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := d.makeDir(missing[i]); err != nil {
			return err
		}
	}
	for _, dir := range stateDirs {
		if err := d.makeDir(filepath.Join(d.root, dir)); err != nil {
			return err
		}
	}
	return nil
}

// makeDir makes one directory, or makes sure that it is one: Nix does not
// accept symbolic links on the way to a store, and they could lead out of root.
func (d *destination) makeDir(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		d.created = append(d.created, dir)
		return nil
	}
	if errors.Is(err, unix.ENOTDIR) {
		return &InputError{File: filepath.Dir(dir), Reason: "not a directory", Err: err}
	}
	if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create store: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	if !info.IsDir() {
		return &InputError{File: dir, Reason: "not a directory", Hint: "a store and the directories on the way to it must not be symbolic links"}
	}
	return nil
}

// hasDatabase says whether there is a database below root, and fails if there
// is one that must not be written to.
func hasDatabase(root string) (bool, error) {
	dir := filepath.Join(root, databaseDir)
	file := filepath.Join(dir, "schema")
	schema, err := os.ReadFile(file)
	if err == nil {
		if found := strings.TrimSpace(string(schema)); found != schemaVersion {
			return false, &InputError{File: file, Reason: fmt.Sprintf("the store has schema version %q, and only version %s is supported", found, schemaVersion),
				Hint: "import into a store made by Nix 2.0 or later, or into a new one"}
		}
		return true, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("open store database: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("open store database: %w", err)
	}
	if len(entries) > 0 {
		return false, &InputError{File: dir, Reason: "has files, but no file schema", Hint: "a Nix process is making this database, or was interrupted doing so"}
	}
	return false, nil
}

// removeLeftovers removes what an import has begun and not completed: this one,
// or one that was killed.
func (d *destination) removeLeftovers() error {
	names, err := readNames(int(d.store.Fd()))
	if err != nil {
		return fmt.Errorf("read store: %w", err)
	}
	var errs []error
	for _, name := range names {
		if strings.HasPrefix(name, tempPrefix) {
			errs = append(errs, removeTree(int(d.store.Fd()), name))
		}
	}
	errs = append(errs, os.RemoveAll(filepath.Join(d.root, newDatabaseDir)))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove an incomplete import: %w", err)
	}
	return nil
}

// differsFrom fails if source is the store's own directory: a path that is not
// valid would be replaced by a copy of itself, and lost if that failed.
func (d *destination) differsFrom(source *os.File) error {
	from, err := source.Stat()
	if err != nil {
		return fmt.Errorf("open source store: %w", err)
	}
	to, err := d.store.Stat()
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	if os.SameFile(from, to) {
		return &InputError{File: d.store.Name(), Reason: "the source is this store itself"}
	}
	return nil
}

// publish gives the store path base the files at the temporary name temp. What
// has that name already is not valid: a killed import or build left it there.
func (d *destination) publish(temp, base string) error {
	store := int(d.store.Fd())
	err := unix.Renameat(store, temp, store, base)
	switch err {
	case unix.EEXIST, unix.ENOTEMPTY, unix.EISDIR, unix.ENOTDIR:
		if err := removeTree(store, base); err != nil {
			return fmt.Errorf("replace %s/%s: %w", StoreDir, base, err)
		}
		err = unix.Renameat(store, temp, store, base)
	}
	if err != nil {
		return fmt.Errorf("complete %s/%s: %w", StoreDir, base, err)
	}
	d.published = append(d.published, base)
	return nil
}

// newDatabase makes the directory of a fresh store's database with all that Nix
// expects there but the schema file.
func (d *destination) newDatabase(ctx context.Context) (*database, error) {
	dir := filepath.Join(d.root, newDatabaseDir)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create store database: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "big-lock"), nil, 0o600); err != nil {
		return nil, fmt.Errorf("create store database: %w", err)
	}
	return createDatabase(ctx, filepath.Join(dir, "db.sqlite"))
}

// publishDatabase makes a complete fresh database that of the store. It is not
// synced: the files of the store paths are not either, and after a crash a
// database without them would be worse than none.
func (d *destination) publishDatabase() error {
	dir := filepath.Join(d.root, newDatabaseDir)
	if err := os.WriteFile(filepath.Join(dir, "schema"), []byte(schemaVersion), 0o644); err != nil {
		return fmt.Errorf("complete store database: %w", err)
	}
	// os.Rename does not replace a directory, not even an empty one.
	if err := unix.Rename(dir, filepath.Join(d.root, databaseDir)); err != nil {
		return fmt.Errorf("complete store database: %w", err)
	}
	return nil
}

// commit makes what has been published stay.
func (d *destination) commit() {
	d.created, d.published = nil, nil
}

// rollback removes all that this import has made and not committed.
func (d *destination) rollback() error {
	var errs []error
	if d.locked {
		errs = append(errs, d.removeLeftovers())
		for _, name := range d.published {
			errs = append(errs, removeTree(int(d.store.Fd()), name))
		}
	}
	for i := len(d.created) - 1; i >= 0; i-- {
		// One that somebody else has begun to use stays.
		err := os.Remove(d.created[i])
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("undo the import: %w", err)
	}
	return nil
}

// close releases the locks.
func (d *destination) close() error {
	var errs []error
	for _, f := range []*os.File{d.bigLock, d.store} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
