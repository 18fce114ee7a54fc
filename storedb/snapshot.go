package storedb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"vm-prebuild/nar/tree"
)

// snapshotName is the snapshot that becomes the store's directory of paths; it
// lies beside that.
const snapshotName = "nix/tmp-vm-prebuild-store"

// Of every so many paths of the source, one may be none of the closure's, and
// MethodAuto still takes a snapshot: removing a path takes about as long as
// copying one.
const snapshotExtras = 20

// The interface of btrfs, see linux/btrfs.h.
const (
	btrfsSnapCreateV2  = 0x50009417 // _IOW(0x94, 23, struct btrfs_ioctl_vol_args_v2)
	btrfsSnapDestroy   = 0x5000940f // _IOW(0x94, 15, struct btrfs_ioctl_vol_args)
	btrfsFSInfo        = 0x8400941f // _IOR(0x94, 31, struct btrfs_ioctl_fs_info_args)
	btrfsSubvolumeRoot = 256        // inode of the topmost directory of each subvolume
)

type btrfsVolArgsV2 struct {
	fd      int64
	transid uint64
	flags   uint64
	unused  [4]uint64
	name    [4040]byte
}

type btrfsFSInfoArgs struct {
	maxID, devices uint64
	id             [16]byte
	rest           [992]byte
}

type btrfsVolArgs struct {
	fd   int64
	name [4088]byte
}

// sameBtrfs says whether two open directories lie on one btrfs.
func sameBtrfs(a, b int) bool {
	ofA, err := btrfsID(a)
	if err != nil {
		return false
	}
	ofB, err := btrfsID(b)
	return err == nil && ofA == ofB
}

// btrfsID returns what is the same for all subvolumes of a btrfs.
func btrfsID(fd int) (id [16]byte, err error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return id, err
	}
	if fs.Type != unix.BTRFS_SUPER_MAGIC {
		return id, unix.ENOTTY
	}
	var args btrfsFSInfoArgs
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), btrfsFSInfo, uintptr(unsafe.Pointer(&args)))
	if errno != 0 {
		return id, errno
	}
	return args.id, nil
}

// snapshot makes the directory of store paths of a fresh store a snapshot of the
// source's, and removes from it what is not in the closure.
func (i *importer) snapshot(ctx context.Context, source *os.File) error {
	extras, err := i.snapshotExtras(source)
	if err != nil {
		return err
	}
	name := filepath.Join(i.Store, snapshotName)
	if err := removeSnapshot(name); err != nil { // a killed import may have left it
		return fmt.Errorf("remove an incomplete import: %w", err)
	}
	if err := createSnapshot(source, name); err != nil {
		return i.methodError(MethodReflink, "no snapshot of "+source.Name()+" can be made in "+filepath.Dir(name), err)
	}
	i.dst.undo = func() error { return removeSnapshot(name) }
	fd, err := tree.OpenDir(unix.AT_FDCWD, name)
	if err != nil {
		return fmt.Errorf("open snapshot: %w", err)
	}
	dir := os.NewFile(uintptr(fd), i.dst.store.Name()) // where it will be
	for _, extra := range extras {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = tree.Remove(fd, extra)
		}
	}
	if err == nil {
		_, err = tryLock(fd, unix.LOCK_EX) // nobody else knows of it
	}
	if err == nil {
		err = i.lockReplaceable(ctx)
	}
	if e := new(MethodError); errors.As(err, &e) {
		i.dst.undo = nil
		return cmp.Or(dir.Close(), removeSnapshot(name), err)
	}
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, name, unix.AT_FDCWD, i.dst.store.Name(), unix.RENAME_EXCHANGE)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("complete snapshot: %w", err), dir.Close())
	}
	i.dst.undo = func() error {
		err := unix.Renameat2(unix.AT_FDCWD, name, unix.AT_FDCWD, i.dst.store.Name(), unix.RENAME_EXCHANGE)
		return errors.Join(err, removeSnapshot(name))
	}
	i.dst.obsolete = name
	i.dst.replaceStore(dir)
	i.summary.Method = MethodSnapshot
	done := i.counter(PhasePlace)
	for n := range i.missing {
		done(n)
	}
	return nil
}

// snapshotExtras finds out whether a snapshot of the source can be what the store
// needs, and lists what is to be removed from it. An error is a *MethodError if
// only the method is at fault.
func (i *importer) snapshotExtras(source *os.File) ([]string, error) {
	if !i.dst.fresh {
		return nil, i.methodError(MethodReflink, "the store has paths already, and a snapshot is a whole store", nil)
	}
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Fstat(int(source.Fd()), &st), unix.Fstatfs(int(source.Fd()), &fs)); err != nil {
		return nil, fmt.Errorf("open source store: %w", err)
	}
	if fs.Type != unix.BTRFS_SUPER_MAGIC || st.Ino != btrfsSubvolumeRoot {
		return nil, i.methodError(MethodReflink, source.Name()+" is not a btrfs subvolume", nil)
	}
	wanted := map[string]bool{}
	for _, info := range i.missing {
		name := baseName(info.Path)
		wanted[name] = true
		if err := unix.Fstatat(int(source.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, fmt.Errorf("look for %s in the source store: %w", info.Path, err)
		}
		mode := st.Mode &^ unix.S_IFMT
		if st.Mtim.Sec != tree.Mtime || st.Mode&unix.S_IFMT != unix.S_IFLNK && mode != tree.ModeRegular && mode != tree.ModeExecutable {
			return nil, i.methodError(MethodReflink, info.Path+" has metadata that nothing in a store has, and a snapshot cannot change it", nil)
		}
	}
	if err := i.checkReplaceable(); err != nil {
		return nil, err
	}
	names, err := tree.Names(int(source.Fd()))
	if err != nil {
		return nil, fmt.Errorf("read source store: %w", err)
	}
	var extras []string
	for _, name := range names {
		if !wanted[name] && name != linksDir {
			extras = append(extras, name)
		}
	}
	if i.Method == MethodAuto && len(extras) > len(names)/snapshotExtras {
		return nil, i.methodError(MethodReflink, "the source has many other paths", nil)
	}
	return extras, nil
}

// checkReplaceable fails with a *MethodError if something is in the fresh store
// that would be lost: without a database only leftovers of a killed import can be
// there.
func (i *importer) checkReplaceable() error {
	wanted := make(map[string]bool, len(i.missing))
	for _, info := range i.missing {
		wanted[baseName(info.Path)] = true
	}
	present, err := tree.Names(int(i.dst.store.Fd()))
	if err != nil {
		return fmt.Errorf("read store: %w", err)
	}
	for _, name := range present {
		if name != linksDir && !wanted[name] && !isTempName(name) {
			return i.methodError(MethodReflink, filepath.Join(i.dst.store.Name(), name)+" is in the way of a snapshot", nil)
		}
	}
	return nil
}

// lockReplaceable keeps Nix out of the fresh store until the import has ended,
// so that what is at its place can be exchanged, and back. It fails with a
// *MethodError if Nix or somebody else has begun to use the store; then other
// methods can go on.
func (i *importer) lockReplaceable(ctx context.Context) error {
	if err := i.dst.lockDatabase(ctx); err != nil {
		return err
	}
	if !i.dst.fresh {
		if err := i.lookUp(ctx); err != nil {
			return err
		}
		return i.methodError(MethodReflink, "somebody has begun to use the store meanwhile", nil)
	}
	err := i.checkReplaceable()
	if e := new(MethodError); errors.As(err, &e) {
		// Copying takes long, and can do without.
		lock := i.dst.bigLock
		i.dst.bigLock = nil
		return cmp.Or(lock.Close(), err)
	}
	return err
}

// createSnapshot makes a snapshot of the open subvolume.
func createSnapshot(subvolume *os.File, name string) error {
	parent, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer parent.Close()
	args := btrfsVolArgsV2{fd: int64(subvolume.Fd())}
	copy(args.name[:], filepath.Base(name))
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, parent.Fd(), btrfsSnapCreateV2, uintptr(unsafe.Pointer(&args)))
	if errno != 0 {
		return os.NewSyscallError("BTRFS_IOC_SNAP_CREATE_V2", errno)
	}
	return nil
}

// removeSnapshot removes a subvolume, or a directory. One that is not there is
// removed already.
func removeSnapshot(name string) error {
	parent, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer parent.Close()
	var args btrfsVolArgs
	copy(args.name[:], filepath.Base(name))
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, parent.Fd(), btrfsSnapDestroy, uintptr(unsafe.Pointer(&args)))
	if errno == 0 {
		return nil
	}
	return tree.Remove(int(parent.Fd()), filepath.Base(name)) // not a subvolume, or only root may
}
