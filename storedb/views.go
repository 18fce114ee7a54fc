package storedb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vm-prebuild/storedb/internal/mount"
)

// overlayDir takes what is written to a store that is an overlay.
const overlayDir = "nix/.store-overlay"

// mount shows the missing paths of the source in the store, in the mount
// namespace of this process.
func (i *importer) mount(ctx context.Context, source *os.File) error {
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
	names, err := readNames(int(i.dst.store.Fd()))
	if err != nil {
		return fmt.Errorf("read store: %w", err)
	}
	for _, name := range names {
		if name != linksDir {
			return i.methodError(MethodBind, "an overlay would hide "+filepath.Join(v.Target, name), nil)
		}
	}
	v.Scratch = filepath.Join(i.Store, overlayDir)
	// What an earlier mount has left belongs to a store that is no longer seen.
	root, err := os.Open(filepath.Dir(v.Scratch))
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	defer root.Close()
	if err := removeTree(int(root.Fd()), filepath.Base(v.Scratch)); err != nil {
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
			closeRead(fd)
			err = removeTree(int(store.Fd()), name)
		}
		if err != nil { // EXDEV: a mount that is another's
			errs = append(errs, fmt.Errorf("remove %s from %s: %w", name, v.Target, err))
		}
	}
	return errors.Join(errs...)
}
