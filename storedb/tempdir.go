package storedb

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixbase32"
	"golang.org/x/sys/unix"

	"vm-prebuild/nar/tree"
)

// tempSuffix follows a random hash part in the name of the directory that an
// import makes its paths in. So the name has the form of a store path's, and can
// be a temporary root: anything else, Nix up to 2.8 removes from a store
// whenever it collects garbage.
const tempSuffix = "-tmp-vm-prebuild-import"

// tempMode is the mode of such a directory. Nothing valid has it.
const tempMode = 0o700

// isTempName says whether an import may have given a directory this name.
// Something else may have it, too.
func isTempName(name string) bool {
	const hashLength = 32
	return len(name) == hashLength+len(tempSuffix) && strings.HasSuffix(name, tempSuffix) && CheckStorePath(StoreDir+"/"+name) == nil
}

// partialPrefix begins the names of what is being made in there. What has been
// completed and can be taken up by another import has its base name.
const partialPrefix = "partial-"

func partialName(n int) string { return partialPrefix + strconv.Itoa(n) }

// tempDir is a directory in the store that one import makes its paths in. It is
// locked as long as the import lives.
type tempDir struct {
	*os.File
	name     string          // in the store
	complete map[string]bool // base names of what an import before has completed
}

// openTempDir makes the directory, or takes over that of a killed or failed
// import if resume says so. Others of such imports are removed. db is that of the
// store, nil if it has none.
func (d *destination) openTempDir(ctx context.Context, db *database, resume bool) error {
	found, err := d.findTempDirs(ctx, db)
	if err != nil {
		return fmt.Errorf("look for incomplete imports: %w", err)
	}
	for _, name := range found {
		stale, err := d.lockStale(name)
		if err != nil {
			return fmt.Errorf("look for incomplete imports: %w", err)
		}
		if stale == nil {
			continue
		}
		if resume && d.temp == nil {
			d.temp, err = stale, d.takeOver(ctx, stale)
		} else {
			err = errors.Join(tree.Remove(int(d.store.Fd()), name), stale.Close())
		}
		if err != nil {
			return fmt.Errorf("remove an incomplete import: %w", err)
		}
	}
	if d.temp != nil {
		return nil
	}
	if d.temp, err = d.makeTempDir(ctx); err != nil {
		return fmt.Errorf("write to store: %w", readOnlyHint(err, d.store.Name()))
	}
	return nil
}

// findTempDirs returns the names in the store that are those of imports, and not
// of valid paths.
func (d *destination) findTempDirs(ctx context.Context, db *database) ([]string, error) {
	names, err := tree.Names(int(d.store.Fd()))
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !isTempName(name) })
	if db == nil || len(names) == 0 {
		return names, nil
	}
	infos := make([]PathInfo, len(names))
	for n, name := range names {
		infos[n].Path = StoreDir + "/" + name
	}
	valid, err := validPaths(ctx, db, infos)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(name string) bool {
		_, ok := valid[StoreDir+"/"+name]
		return ok
	}), nil
}

func (d *destination) makeTempDir(ctx context.Context) (*tempDir, error) {
	for {
		var random [20]byte
		_, _ = rand.Read(random[:]) // it never fails
		name := nixbase32.EncodeToString(random[:]) + tempSuffix
		if err := d.roots.add(ctx, StoreDir+"/"+name); err != nil {
			return nil, err
		}
		if err := unix.Mkdirat(int(d.store.Fd()), name, tempMode); err != nil {
			return nil, &fs.PathError{Op: "mkdir", Path: filepath.Join(d.store.Name(), name), Err: err}
		}
		// Before it is locked, an import may take it for an abandoned one.
		if dir, err := d.lockTempDir(name); dir != nil || err != nil {
			return dir, err
		}
	}
}

// lockStale opens the directory of an import that no longer lives. It returns nil
// if the import lives, or if this is not what makeTempDir makes: others may be
// allowed to write to a store, such as Nix's build users, and give what they like
// this name.
func (d *destination) lockStale(name string) (*tempDir, error) {
	dir, err := d.lockTempDir(name)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EACCES) {
		return nil, nil
	}
	if dir == nil || err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "stat", Path: dir.Name(), Err: err}, dir.Close())
	}
	if !isOwn(st) || st.Mode&0o777 != tempMode {
		return nil, dir.Close()
	}
	return dir, nil
}

// isOwn says whether a file is that of the user who imports.
func isOwn(st unix.Stat_t) bool { return int(st.Uid) == os.Geteuid() }

// lockTempDir opens a directory of an import. It returns nil if the import
// lives, or if the directory is no longer there.
func (d *destination) lockTempDir(name string) (*tempDir, error) {
	path := filepath.Join(d.store.Name(), name)
	fd, err := tree.OpenDir(int(d.store.Fd()), name)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	dir := &tempDir{File: os.NewFile(uintptr(fd), path), name: name}
	ok, err := tryLock(fd, unix.LOCK_EX)
	if ok {
		ok, err = isCurrent(dir.File, path)
	}
	if !ok || err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// takeOver makes an abandoned directory that of this import: what is complete in
// it stays. Its mode keeps others out, so what is in it has been put there by this
// user; the owner of each path is looked at nevertheless, before the path is
// hashed, but not of each file in it.
func (d *destination) takeOver(ctx context.Context, dir *tempDir) error {
	if err := d.roots.add(ctx, StoreDir+"/"+dir.name); err != nil {
		return err
	}
	names, err := tree.Names(int(dir.Fd()))
	if err != nil {
		return err
	}
	dir.complete = map[string]bool{}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &fs.PathError{Op: "stat", Path: filepath.Join(dir.Name(), name), Err: err}
		}
		if isOwn(st) && CheckStorePath(StoreDir+"/"+name) == nil {
			dir.complete[name] = true
		} else if err := tree.Remove(int(dir.Fd()), name); err != nil {
			return err
		}
	}
	return nil
}

// closeTempDir removes the directory, or leaves what is complete in it to
// another import.
func (d *destination) closeTempDir(keep bool) error {
	if d.temp == nil {
		return nil
	}
	dir := d.temp
	d.temp = nil
	if !keep {
		return errors.Join(tree.Remove(int(d.store.Fd()), dir.name), dir.Close())
	}
	names, err := tree.Names(int(dir.Fd()))
	errs := []error{err}
	for _, name := range names {
		if strings.HasPrefix(name, partialPrefix) {
			errs = append(errs, tree.Remove(int(dir.Fd()), name))
		}
	}
	err = unix.Unlinkat(int(d.store.Fd()), dir.name, unix.AT_REMOVEDIR)
	if !errors.Is(err, unix.ENOTEMPTY) {
		errs = append(errs, err)
	}
	return cmp.Or(append(errs, dir.Close())...)
}

// readOnlyHint says what to do about a directory that cannot be written to, such
// as the store of NixOS.
func readOnlyHint(err error, dir string) error {
	if errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%w\nhint: if %s is only mounted read-only, run this in a mount namespace where it is not: 'unshare --mount', then 'mount -o remount,rw,bind %[2]s'", err, dir)
	}
	return err
}
