package storedb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vm-prebuild/nar/tree"
)

// Where things lie below the root of a store.
const (
	storeDir    = "nix/store"
	linksDir    = ".links" // in storeDir: Nix's farm of hard links
	stateDir    = "nix/var/nix"
	databaseDir = stateDir + "/db"
	schemaFile  = databaseDir + "/schema"
	bigLockFile = databaseDir + "/big-lock"
	// A new store's database is made here and moved when it is complete.
	newDatabaseDir = stateDir + "/tmp-vm-prebuild-db"
)

// stateDirs are the directories that Nix makes when it opens a store that does
// not have them, parents first. Several processes that open a new store at once
// get in each other's way doing so; here they find all of it.
var stateDirs = [...]string{
	"nix", storeDir, storeDir + "/" + linksDir,
	"nix/var", stateDir, databaseDir, tempRootsDir,
	gcRootsDir, gcRootsDir + "/per-user",
	stateDir + "/profiles", stateDir + "/profiles/per-user",
	"nix/var/log", "nix/var/log/nix", "nix/var/log/nix/drvs",
}

// destination is a store that is being written to.
//
// While it has no database, imports exclude each other by a lock on its
// directory of store paths, and the one that makes the database excludes Nix
// meanwhile. In a store that has one, imports and Nix exclude each other path by
// path, see [pathLocks].
type destination struct {
	patience
	root     string
	fresh    bool     // there is no database yet
	store    *os.File // the directory of store paths; locked if fresh
	replaced *os.File // what was the directory before replaceStore; nil if it was not called
	bigLock  *os.File // what every Nix process has locked that uses the store; nil as long as fresh
	roots    *tempRoots
	temp     *tempDir // nil until openTempDir
	locks    pathLocks

	drafted   bool         // newDatabase was called
	created   []string     // files and directories made in a fresh store, parents first
	published []string     // names in store that this import has completed
	obsolete  string       // a directory that is not needed once the import has succeeded; may be empty
	undo      func() error // takes away what this import has put in the place of store; may be nil
}

// openDestination makes the directories of the store below root, as far as they
// are missing, waits for its locks, and gets ready for temporary roots.
func openDestination(ctx context.Context, root string, p patience) (*destination, error) {
	d := &destination{root: root, patience: p}
	err := d.openStore(ctx)
	if err == nil && !d.fresh {
		if err = d.lockDatabase(ctx); err == nil {
			err = d.removeStaleDatabase()
		}
	}
	if err == nil {
		var made bool
		d.roots, made, err = openTempRoots(root, p)
		d.noteCreated(filepath.Join(root, gcLockFile), made)
	}
	if err != nil {
		return nil, errors.Join(err, d.rollback(false), d.close())
	}
	d.locks = pathLocks{patience: p, store: int(d.store.Fd())}
	return d, nil
}

// openStore makes the directories and opens the one of store paths. If there is
// no database it waits for that directory's lock. An import that held it may
// have failed and removed what it had made, this directory too: then all begins
// anew.
func (d *destination) openStore(ctx context.Context) error {
	for {
		if err := d.makeDirs(); err != nil {
			return err
		}
		store, err := os.Open(filepath.Join(d.root, storeDir))
		if err != nil {
			return fmt.Errorf("open store: %w", err)
		}
		d.store = store
		current, err := d.lockStore(ctx)
		if err != nil {
			return err
		}
		if current {
			return nil
		}
		if err := store.Close(); err != nil {
			return fmt.Errorf("open store: %w", err)
		}
	}
}

// lockStore finds out whether the store has a database, and locks its directory
// of store paths if it has none. It returns false if that is no longer what is
// found at its place.
func (d *destination) lockStore(ctx context.Context) (current bool, err error) {
	state, err := readDatabaseState(d.root)
	if err != nil {
		return false, err
	}
	if state == noDatabase {
		err := d.wait(ctx, "another import into "+d.root, func() (bool, error) { return tryLock(int(d.store.Fd()), unix.LOCK_EX) })
		if err != nil {
			d.created = nil // whoever holds the lock uses them
			return false, fmt.Errorf("lock store: %w", err)
		}
		current, err := isCurrent(d.store, filepath.Join(d.root, storeDir))
		if err != nil {
			return false, fmt.Errorf("open store: %w", err)
		}
		if !current {
			return false, nil
		}
		if err := d.makeDirs(); err != nil {
			return false, err
		}
		if state, err = readDatabaseState(d.root); err != nil {
			return false, err
		}
	}
	if d.fresh = state == noDatabase; !d.fresh {
		d.created = nil
		if _, err := tryLock(int(d.store.Fd()), unix.LOCK_UN); err != nil {
			return false, fmt.Errorf("unlock store: %w", err)
		}
	}
	return true, nil
}

// noteCreated notes that the file is to be removed if the import fails.
func (d *destination) noteCreated(name string, made bool) {
	if made && d.fresh {
		d.created = append(d.created, name)
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
		return fmt.Errorf("create store: %w", readOnlyHint(err, d.root))
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

// replaceStore notes that something else is now at the place of the directory of
// store paths. The old one stays locked.
func (d *destination) replaceStore(store *os.File) {
	d.replaced, d.store = d.store, store
	d.locks.store = int(store.Fd())
}

// publish gives the store path base the files that are name in the temporary
// directory. What has that name already is not valid: a killed import or build
// left it there.
func (d *destination) publish(name, base string) error {
	err := d.rename(name, base)
	switch {
	case errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENOTDIR):
		if err := tree.Remove(int(d.store.Fd()), base); err != nil {
			return fmt.Errorf("replace %s/%s: %w", StoreDir, base, err)
		}
		err = d.rename(name, base)
	}
	if err != nil {
		return fmt.Errorf("complete %s/%s: %w", StoreDir, base, err)
	}
	d.published = append(d.published, base)
	return nil
}

// rename moves name from the temporary directory to the store. Only root may
// move a directory that is read-only, because it has an entry for its parent.
func (d *destination) rename(name, base string) (err error) {
	temp, store := int(d.temp.Fd()), int(d.store.Fd())
	err = unix.Renameat(temp, name, store, base)
	if !errors.Is(err, unix.EACCES) {
		return err
	}
	dir, openErr := tree.OpenDir(temp, name)
	if openErr != nil {
		return err
	}
	defer tree.CloseRead(dir)
	if err := unix.Fchmod(dir, tree.ModeExecutable|unix.S_IWUSR); err != nil {
		return err
	}
	return errors.Join(unix.Renameat(temp, name, store, base), unix.Fchmod(dir, tree.ModeExecutable))
}

// commit makes what has been published stay.
func (d *destination) commit() {
	d.created, d.published, d.undo = nil, nil, nil
}

// rollback removes all that this import has made and not committed. If keep is
// true, complete paths stay in the temporary directory for the next import. Of
// several errors, which a broken file system has for each file, it returns the
// first, and so does close. If a database cannot be removed, what it calls valid
// stays.
func (d *destination) rollback(keep bool) error {
	if err := d.unpublishDatabase(); err != nil {
		return fmt.Errorf("undo the import: %w", err)
	}
	errs := []error{d.closeTempDir(keep)}
	if d.undo != nil {
		errs = append(errs, d.undo())
	}
	for _, name := range d.published {
		errs = append(errs, tree.Remove(int(d.store.Fd()), name))
	}
	if d.roots != nil {
		errs = append(errs, d.roots.close())
		d.roots = nil
	}
	if d.drafted { // also if somebody else has made a database since
		errs = append(errs, os.RemoveAll(filepath.Join(d.root, newDatabaseDir)))
	}
	errs = append(errs, d.removeCreated())
	if err := cmp.Or(errs...); err != nil {
		return fmt.Errorf("undo the import: %w", err)
	}
	return nil
}

// removeCreated removes files and directories that were made for the store, as
// far as nobody else has begun to use them.
func (d *destination) removeCreated() error {
	if d.bigLock == nil && len(d.created) > 0 {
		if state, err := readDatabaseState(d.root); err != nil || state != noDatabase {
			return err
		}
	}
	var errs []error
	for i := len(d.created) - 1; i >= 0; i-- {
		err := os.Remove(d.created[i])
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, err)
		}
	}
	return cmp.Or(errs...)
}

// close removes what only an import needs, and releases the locks.
func (d *destination) close() error {
	errs := []error{d.closeTempDir(false), d.locks.release()}
	if d.obsolete != "" {
		errs = append(errs, removeSnapshot(d.obsolete))
	}
	if d.roots != nil {
		errs = append(errs, d.roots.close())
	}
	for _, f := range []*os.File{d.bigLock, d.store, d.replaced} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return cmp.Or(errs...)
}
