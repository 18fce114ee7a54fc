package mount

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Bind shows v with one read-only mount for each path. Paths that are symbolic
// links, which nothing can be mounted on, are made anew.
//
// The mount points lie in memory below an overlay, as in [View.Overlay], because
// making 3,000 directories on a disk and removing them costs several times what
// all the mounts cost. Without Scratch, and where the kernel allows no overlay,
// they are made in Target itself.
func (v View) Bind(ctx context.Context) error {
	source, err := os.Open(v.Source)
	if err != nil {
		return fmt.Errorf("open source store: %w", err)
	}
	defer source.Close()
	modes, err := v.modes(ctx, source)
	if err != nil {
		return err
	}
	points := v.Target
	if v.Scratch != "" {
		layer, err := v.layer()
		if err != nil {
			return err
		}
		defer unmount(layer)
		if err := v.mountPoints(ctx, source, layer.Name(), modes); err != nil {
			return err
		}
		err = v.stack([]string{layer.Name()})
		if err == nil {
			points = ""
		} else if e := new(Error); !errors.As(err, &e) {
			return err
		}
	}
	if points != "" {
		if err := v.mountPoints(ctx, source, points, modes); err != nil {
			return err
		}
	}
	return v.bindAll(ctx, source, modes)
}

// modes returns the file type of each name.
func (v View) modes(ctx context.Context, source *os.File) ([]uint32, error) {
	modes := make([]uint32, len(v.Names))
	for i, name := range v.Names {
		var st unix.Stat_t
		err := unix.Fstatat(int(source.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			return nil, &MissingError{Source: v.Source, Name: name}
		}
		if err != nil {
			return nil, fmt.Errorf("read source store: %s: %w", name, err)
		}
		modes[i] = st.Mode & unix.S_IFMT
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return modes, nil
}

// mountPoints makes what the paths are mounted on, and the symbolic links.
func (v View) mountPoints(ctx context.Context, source *os.File, dir string, modes []uint32) error {
	target, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("make mount points: %w", err)
	}
	defer target.Close()
	for i, name := range v.Names {
		if err := mountPoint(int(source.Fd()), int(target.Fd()), name, modes[i]); err != nil {
			return fmt.Errorf("make a mount point for %s: %w", name, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

func mountPoint(source, target int, name string, mode uint32) error {
	switch mode {
	case unix.S_IFDIR:
		return unix.Mkdirat(target, name, 0o755)
	case unix.S_IFREG:
		return unix.Mknodat(target, name, unix.S_IFREG|0o644, 0)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(source, name, buf)
		if err != nil {
			return err
		}
		return unix.Symlinkat(string(buf[:n]), target, name)
	}
	return errors.New("not a directory, a regular file or a symbolic link")
}

func (v View) bindAll(ctx context.Context, source *os.File, modes []uint32) error {
	target, err := os.Open(v.Target)
	if err != nil {
		return fmt.Errorf("bind store paths: %w", err)
	}
	defer target.Close()
	for i, name := range v.Names {
		if modes[i] == unix.S_IFLNK {
			continue
		}
		if err := bind(int(source.Fd()), int(target.Fd()), name); err != nil {
			return &Error{Op: "bind " + name, Err: err}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
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
