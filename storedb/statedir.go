package storedb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// databaseState is how much there is of a store's database.
type databaseState int

const (
	noDatabase databaseState = iota
	unfinished               // a file, but not what says that it can be used
	complete
)

// readDatabaseState looks at the database below root, and fails if there is one
// that must not be written to.
func readDatabaseState(root string) (databaseState, error) {
	file := filepath.Join(root, schemaFile)
	schema, err := os.ReadFile(file)
	if err == nil && len(schema) > 0 { // Nix makes it empty before it writes to it
		if found := strings.TrimSpace(string(schema)); found != schemaVersion {
			return 0, &InputError{File: file, Reason: fmt.Sprintf("the store has schema version %q, and only version %s is supported", found, schemaVersion),
				Hint: "import into a store made by Nix 2.0 or later, or into a new one"}
		}
		return complete, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return 0, fmt.Errorf("open store database: %w", err)
	}
	_, err = os.Lstat(filepath.Join(root, databaseDir, databaseName))
	switch {
	case err == nil:
		return unfinished, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
	default:
		return 0, fmt.Errorf("open store database: %w", err)
	}
	// SQLite would take the log of another database for that of a new one.
	log := filepath.Join(root, databaseDir, databaseName+"-wal")
	if _, err := os.Lstat(log); err == nil {
		return 0, &InputError{File: log, Reason: "the log of a database that is not there",
			Hint: "if nothing in this store is needed, remove the directory " + filepath.Dir(log)}
	}
	return noDatabase, nil
}

// hasDatabase says whether there is a database below root that can be read.
func hasDatabase(root string) (bool, error) {
	state, err := readDatabaseState(root)
	return state == complete, err
}

// completeDatabase does what Nix does when it finds a database without a schema
// file: whoever was making it was interrupted. The lock of the store is held,
// so nobody is making it now.
func (d *destination) completeDatabase(ctx context.Context) error {
	db, err := connect(filepath.Join(d.root, databaseDir, databaseName), "mode=rw"+busyTimeout)
	if err != nil {
		return err
	}
	err = db.exec(ctx, tables+indices+"pragma journal_mode = wal;")
	if err != nil {
		err = db.failed("complete", err)
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	temp := filepath.Join(d.root, schemaFile+".vm-prebuild")
	if err := os.WriteFile(temp, []byte(schemaVersion), 0o644); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(d.root, schemaFile))
}

// lockDatabase takes the lock that every Nix process holds which uses the store:
// shared if the store has a database. If it has none, exclusively, so that
// nobody makes one; fresh then stays true. A database that somebody has begun to
// make and no longer does is completed.
func (d *destination) lockDatabase(ctx context.Context) error {
	if d.bigLock != nil {
		return nil
	}
	file := filepath.Join(d.root, bigLockFile)
	err := d.wait(ctx, "the lock of the store below "+d.root, func() (bool, error) {
		state, err := readDatabaseState(d.root)
		if err != nil {
			return false, err
		}
		f, made, err := openLockFile(file)
		if err != nil {
			return false, err
		}
		d.noteCreated(file, made)
		how := unix.LOCK_SH
		if state != complete {
			how = unix.LOCK_EX
		}
		ok, err := tryLock(int(f.Fd()), how)
		if ok {
			ok, err = isCurrent(f, file)
		}
		if ok {
			var now databaseState
			now, err = readDatabaseState(d.root)
			ok = err == nil && now == state
		}
		if ok && state == unfinished {
			ok, err = false, d.completeDatabase(ctx)
		}
		if !ok {
			return false, errors.Join(err, f.Close())
		}
		d.bigLock, d.fresh = f, state == noDatabase
		if !d.fresh {
			d.created = nil // they are another's now, too
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("lock store database: %w", err)
	}
	return nil
}

// removeStaleDatabase removes the directory of a new database from a store that
// has one: an import was killed when it had just moved it. One that lives, and
// finds only later that the store has a database, has locked the store.
func (d *destination) removeStaleDatabase() error {
	ok, err := tryLock(int(d.store.Fd()), unix.LOCK_EX)
	if err != nil || !ok {
		return err
	}
	err = os.RemoveAll(filepath.Join(d.root, newDatabaseDir))
	_, unlockErr := tryLock(int(d.store.Fd()), unix.LOCK_UN)
	if err = errors.Join(err, unlockErr); err != nil {
		return fmt.Errorf("remove the database of an incomplete import: %w", err)
	}
	return nil
}

// openLockFile opens a file to lock. It says whether it has made it.
func openLockFile(name string) (f *os.File, made bool, err error) {
	const flags = os.O_RDWR | unix.O_NOFOLLOW
	for {
		f, err := os.OpenFile(name, flags|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			return f, true, nil
		}
		if errors.Is(err, fs.ErrExist) {
			f, err = os.OpenFile(name, flags, 0)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return f, false, err
		}
		if _, err := os.Lstat(filepath.Dir(name)); err != nil {
			return nil, false, err
		}
	}
}

// newDatabase returns the name for the database of a fresh store, in a new
// directory.
func (d *destination) newDatabase() (string, error) {
	dir := filepath.Join(d.root, newDatabaseDir)
	d.drafted = true
	err := os.RemoveAll(dir) // a killed import may have left it
	if err == nil {
		err = os.Mkdir(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, filepath.Base(schemaFile)), []byte(schemaVersion), 0o644)
	}
	if err != nil {
		return "", fmt.Errorf("create store database: %w", err)
	}
	return filepath.Join(dir, databaseName), nil
}

// publishDatabase makes a complete fresh database that of the store; the file
// that says so comes last, when the database is on the disk: after a crash, a store
// may have no database, but none that is empty or torn. As with Nix, the files of
// paths may then be incomplete, which only syncing all of them could prevent. What
// the database calls valid is committed at once, so that nothing removes it.
func (d *destination) publishDatabase() error {
	from, to := filepath.Join(d.root, newDatabaseDir), filepath.Join(d.root, databaseDir)
	for _, name := range []string{databaseName, filepath.Base(schemaFile)} {
		err := syncName(filepath.Join(from, name))
		if err == nil {
			err = os.Rename(filepath.Join(from, name), filepath.Join(to, name))
		}
		if err == nil {
			d.created = append(d.created, filepath.Join(to, name))
		}
		if err == nil && name == databaseName {
			err = syncName(to)
		}
		if err != nil {
			return fmt.Errorf("complete store database: %w", err)
		}
	}
	d.commit()
	_ = os.Remove(from) // it is empty, and in nobody's way
	return nil
}

// unpublishDatabase takes back what publishDatabase has done in part, before the
// files go that the database calls valid.
func (d *destination) unpublishDatabase() error {
	for _, name := range []string{schemaFile, filepath.Join(databaseDir, databaseName)} {
		name = filepath.Join(d.root, name)
		if !slices.Contains(d.created, name) {
			continue
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// syncName is [syncFile] of a file, or a directory, that is not open.
func syncName(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return syncFile(f)
}

// syncFile brings a file, or the names in a directory, to the disk, as far as the
// file system can.
func syncFile(f *os.File) error {
	if err := f.Sync(); !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}
