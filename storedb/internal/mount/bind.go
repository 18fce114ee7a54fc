package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Bind shows v with one read-only mount for each path. Paths that are symbolic
// links, which nothing can be mounted on, are made anew, and so are short files:
// before 2.17, Nix can only make hard links to input paths that are files when it
// builds in a sandbox (github.com/NixOS/nix/pull/8614), and there are none between
// mounts.
//
// All that is made for it lies in memory below an overlay, as in
// [View.Overlay], because making 3,000 directories on a disk and removing them
// costs several times what all the mounts cost. Without Scratch, and where the
// kernel allows no overlay, it is made in Target itself.
func (v View) Bind(ctx context.Context) error {
	source, err := os.Open(v.Source)
	if err != nil {
		return fmt.Errorf("open source store: %w", err)
	}
	defer source.Close()
	b := binder{ctx: ctx, view: v, source: source}
	if err := b.look(); err != nil {
		return err
	}
	err = b.makePointsInMemory()
	if e := new(Error); v.Scratch == "" || errors.As(err, &e) {
		err = b.makePoints(v.Target)
	}
	if err != nil {
		return err
	}
	return b.bindAll()
}

// shortFile is the size of the longest files that are copied, in bytes.
const shortFile = 64 << 10

// binder is the work of Bind.
type binder struct {
	ctx    context.Context
	view   View
	source *os.File
	stats  []unix.Stat_t // of the view's names
}

// look finds out what the names are.
func (b *binder) look() error {
	b.stats = make([]unix.Stat_t, len(b.view.Names))
	for i, name := range b.view.Names {
		err := unix.Fstatat(int(b.source.Fd()), name, &b.stats[i], unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			return &MissingError{Source: b.view.Source, Name: name}
		}
		if err == nil {
			err = b.ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read source store: %s: %w", name, err)
		}
	}
	return nil
}

func (b *binder) makePointsInMemory() error {
	if b.view.Scratch == "" {
		return nil
	}
	layer, err := b.view.layer()
	if err != nil {
		return err
	}
	defer unmount(layer)
	if err := b.makePoints(layer.Name()); err != nil {
		return err
	}
	return b.view.stack([]string{layer.Name()})
}

// makePoints makes mount points, symbolic links and short files in dir.
func (b *binder) makePoints(dir string) error {
	target, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("make mount points: %w", err)
	}
	defer target.Close()
	for i, name := range b.view.Names {
		err := b.makePoint(int(target.Fd()), name, &b.stats[i])
		if err == nil {
			err = b.ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("make a mount point for %s: %w", name, err)
		}
	}
	return nil
}

func (b *binder) makePoint(target int, name string, st *unix.Stat_t) error {
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return unix.Mkdirat(target, name, 0o755)
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(b.source.Fd()), name, buf)
		if err != nil {
			return err
		}
		return unix.Symlinkat(string(buf[:n]), target, name)
	case isShort(st):
		return copyShort(int(b.source.Fd()), target, name, st)
	case st.Mode&unix.S_IFMT == unix.S_IFREG:
		return unix.Mknodat(target, name, unix.S_IFREG|0o644, 0)
	}
	return errors.New("not a directory, a regular file or a symbolic link")
}

func isShort(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size <= shortFile
}

// copyShort copies a short file with its mode and modification time.
func copyShort(source, target int, name string, st *unix.Stat_t) error {
	fd, err := unix.Openat(source, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	from := os.NewFile(uintptr(fd), name)
	defer from.Close()
	fd, err = unix.Openat(target, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	to := os.NewFile(uintptr(fd), name)
	_, err = io.Copy(to, io.LimitReader(from, shortFile))
	err = errors.Join(err, to.Chmod(os.FileMode(st.Mode&0o777)), to.Close())
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(target, name, []unix.Timespec{st.Mtim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// bindAll mounts directories and long files.
func (b *binder) bindAll() error {
	target, err := os.Open(b.view.Target)
	if err != nil {
		return fmt.Errorf("bind store paths: %w", err)
	}
	defer target.Close()
	for i, name := range b.view.Names {
		if st := &b.stats[i]; st.Mode&unix.S_IFMT == unix.S_IFLNK || isShort(st) {
			continue
		}
		if err := bind(int(b.source.Fd()), int(target.Fd()), name); err != nil {
			return Refused("bind "+name, err)
		}
		if err := b.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// ReadOnly makes path, and what is mounted below it, read-only for all who see it in
// this namespace.
func ReadOnly(path string) error {
	err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, "")
	if err == nil {
		err = unix.MountSetattr(unix.AT_FDCWD, path, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	if err != nil {
		return Refused("make "+path+" read-only", err)
	}
	return nil
}

// bind mounts name, and what is mounted below it, in another directory. It is
// read-only before it is there.
func bind(source, target int, name string) error {
	tree, err := unix.OpenTree(source, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	readOnly := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &readOnly); err != nil {
		return err
	}
	return unix.MoveMount(tree, "", target, name, unix.MOVE_MOUNT_F_EMPTY_PATH)
}
