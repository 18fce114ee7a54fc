package storedb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vm-prebuild/nar/tree"
	"vm-prebuild/storedb/internal/mount"
)

// overlayDir takes what is written to a store that is an overlay.
const overlayDir = "nix/.store-overlay"

// mount shows the missing paths of the source in the store, in the mount
// namespace of this process.
func (i *importer) mount(ctx context.Context, source *os.File) error {
	// From here on nobody adds to the store what the mounts would hide.
	if err := i.dst.lockDatabase(ctx); err != nil {
		return err
	}
	if !i.dst.fresh {
		return i.methodError(MethodReflink, "the store has a database already, and what is mounted is gone before that", nil)
	}
	v := mount.View{Source: source.Name(), Target: i.dst.store.Name()}
	for _, info := range i.missing {
		v.Names = append(v.Names, baseName(info.Path))
	}
	var err error
	if i.Method == MethodOverlay {
		err = i.overlay(ctx, v)
	} else {
		if err := unbind(v); err != nil { // a killed import may have left something
			return err
		}
		i.dst.undo = func() error { return unbind(v) }
		err = v.Bind(ctx)
	}
	if e := new(mount.Error); errors.As(err, &e) && e.Hint == "" {
		e.Hint = "method " + string(MethodAuto) + " needs no mounts"
	}
	if err != nil {
		return fmt.Errorf("method %s: %w", i.Method, err)
	}
	store, err := os.Open(v.Target)
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	i.dst.replaceStore(store)
	done := i.counter(PhasePlace)
	for n := range i.missing {
		done(n)
	}
	return nil
}

// overlay mounts an overlay over a store's directory of paths that has none.
func (i *importer) overlay(ctx context.Context, v mount.View) error {
	names, err := tree.Names(int(i.dst.store.Fd()))
	if err != nil {
		return fmt.Errorf("read store: %w", err)
	}
	for _, name := range names {
		if name != linksDir {
			return i.methodError(MethodBind, "an overlay would hide "+filepath.Join(v.Target, name), nil)
		}
	}
	v.Scratch = filepath.Join(i.Store, overlayDir)
	upper := filepath.Join(v.Scratch, "upper")
	written, err := os.ReadDir(upper)
	if err == nil && len(written) > 0 {
		return i.methodError(MethodReflink, upper+" has what was written to an earlier overlay; remove it if it is not needed", nil)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for an earlier overlay: %w", err)
	}
	root, err := os.Open(filepath.Dir(v.Scratch))
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	defer root.Close()
	if err := tree.Remove(int(root.Fd()), filepath.Base(v.Scratch)); err != nil {
		return fmt.Errorf("remove an earlier overlay: %w", err)
	}
	if err := os.Mkdir(v.Scratch, 0o755); err != nil {
		return fmt.Errorf("make an overlay: %w", err)
	}
	i.dst.undo = func() error { return os.RemoveAll(v.Scratch) }
	if err := v.Overlay(ctx); err != nil {
		return err
	}
	i.dst.undo = func() error {
		return errors.Join(unix.Unmount(v.Target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW), os.RemoveAll(v.Scratch))
	}
	return nil
}

// unbind takes away what Bind has mounted and made, as far as it has come, and
// whatever else is there under the names of paths that are not valid.
func unbind(v mount.View) error {
	store, err := os.Open(v.Target)
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	defer store.Close()
	var errs []error
	for _, name := range v.Names {
		// It fails where nothing is mounted, and where this process may not.
		_ = unix.Unmount(filepath.Join(v.Target, name), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		fd, err := unix.Openat2(int(store.Fd()), name, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_XDEV,
		})
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err == nil {
			tree.CloseRead(fd)
			err = tree.Remove(int(store.Fd()), name)
		}
		if err != nil { // EXDEV: a mount that is another's
			errs = append(errs, fmt.Errorf("remove %s from %s: %w", name, v.Target, err))
		}
	}
	return errors.Join(errs...)
}

// Archives of an empty regular file have at most so many bytes, and those of an
// empty directory have less.
const emptyNarSize = 144

// checkValid makes sure that the paths of the closure that are valid are in the
// open directory of the store: what methods overlay and bind have shown goes with
// its mount namespace, and stays registered.
func (i *importer) checkValid(store *os.File, valid map[string]int64) error {
	var absent, hollow int
	var first string
	for _, info := range i.Closure.Paths {
		if _, ok := valid[info.Path]; !ok {
			continue
		}
		var st unix.Stat_t
		err := unix.Fstatat(int(store.Fd()), baseName(info.Path), &st, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case errors.Is(err, unix.ENOENT):
			absent++
		case err != nil:
			return fmt.Errorf("look for %s in the store: %w", info.Path, err)
		case isMountPoint(store, info, &st):
			hollow++
		default:
			continue
		}
		if first == "" {
			first = info.Path
		}
	}
	if absent+hollow == 0 {
		return nil
	}
	e := &InputError{
		File:   store.Name(),
		Reason: fmt.Sprintf("%s has no files, nor have %d others of the closure's paths that the database says are valid", first, absent+hollow-1),
		Hint: "the store was made with --method overlay or bind in another mount namespace, or files were deleted; use 'nix-store --store " +
			i.Store + " --verify' to drop such paths, then import again",
	}
	if hollow > 0 {
		e.Hint = "the store was made with --method bind in another mount namespace; import into a new store"
	}
	return e
}

// isMountPoint says whether st is of what Bind has made to mount a path on: an
// empty directory or file that can be written to.
func isMountPoint(store *os.File, info PathInfo, st *unix.Stat_t) bool {
	if st.Mode&unix.S_IWUSR == 0 || info.NarSize <= emptyNarSize {
		return false
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return st.Size == 0
	case unix.S_IFDIR:
		dir, err := tree.OpenDir(int(store.Fd()), baseName(info.Path))
		if err != nil {
			return false // nobody has mounted anything there who may not read it
		}
		defer tree.CloseRead(dir)
		names, err := tree.Names(dir)
		return err == nil && len(names) == 0
	}
	return false
}
