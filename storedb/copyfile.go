package storedb

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vm-prebuild/nar/tree"
)

// Method says how the contents of files come into the store.
type Method string

const (
	// MethodAuto takes a snapshot where one is possible and has little that does
	// not belong to the closure. Elsewhere it shares the data of each file by
	// reflink where the file system can, and copies it where not.
	MethodAuto Method = "auto"
	// MethodReflink fails where no reflink is possible.
	MethodReflink Method = "reflink"
	// MethodCopy never shares data.
	MethodCopy Method = "copy"
	// MethodHardLink makes the files of the store links to those of the source.
	// Whoever changes one changes both.
	MethodHardLink Method = "hardlink"
	// MethodSnapshot makes the directory of paths of a store that has no database
	// yet a btrfs snapshot of the source's, which must be a subvolume.
	MethodSnapshot Method = "snapshot"
	// MethodOverlay mounts an overlay over the directory of paths, which must be
	// empty: the source's paths below, what is new in the store above. The store
	// is whole in the mount namespace of this process only, which needs
	// CAP_SYS_ADMIN.
	MethodOverlay Method = "overlay"
	// MethodBind mounts each path of the source at its place in the store,
	// read-only, with the same condition.
	MethodBind Method = "bind"
)

var methods = [...]Method{MethodAuto, MethodOverlay, MethodBind, MethodSnapshot, MethodReflink, MethodHardLink, MethodCopy}

// Files up to this size are copied with one read and one write, which costs
// less than having the kernel set up a copy.
const copyRangeMin = 32 << 10

// copyBuffer is the size of a worker's buffer.
const copyBuffer = 256 << 10

// copyChunk is how much the kernel copies before the context is looked at.
const copyChunk = 32 << 20

// cloneMin is the size from which a reflink costs less than a copy. A reflink is
// transactions of the file system: on xfs, one costs as much as copying 16 KiB
// and more. btrfs keeps small files within its trees, which are slow to be
// written to, and has a shortcut for reflinks.
func (p *placer) cloneMin(btrfs bool) int64 {
	if p.method == MethodReflink || btrfs {
		return 1
	}
	return 16 << 10
}

// abilities remembers what the kernel refused between one source device and the
// destination, so that it is not asked again for every file.
type abilities struct {
	noClone, noCopyRange atomic.Bool
}

// contents fills dst with the contents of src, whose state is st.
func (w *worker) contents(ctx context.Context, dst, src int, st *unix.Stat_t) error {
	able := w.abilities(st.Dev)
	if w.method != MethodCopy && st.Size >= w.cloneFrom && !able.noClone.Load() {
		err := unix.IoctlFileClone(dst, src)
		switch err {
		case nil:
			w.stats.reflinked.Add(1)
			return nil
		case unix.EOPNOTSUPP, unix.ENOTTY, unix.EXDEV, unix.ENOSYS, unix.EPERM:
			// The file systems cannot, or a sandbox forbids it.
			able.noClone.Store(w.method == MethodAuto)
		case unix.EINVAL:
			// This file cannot, for instance one without copy-on-write.
		default:
			return fmt.Errorf("reflink: %w", err)
		}
		if w.method == MethodReflink {
			return fmt.Errorf("reflink: %w\nhint: source and store must lie on one btrfs, xfs or bcachefs; --method auto copies where they do not", err)
		}
	}
	copied, err := w.copyRange(ctx, dst, src, st.Size, able)
	if err == nil && copied < st.Size {
		copied, err = w.copyBuffered(ctx, dst, src, copied, st.Size)
	}
	if err != nil {
		return err
	}
	if copied != st.Size {
		return fmt.Errorf("changed its size from %d to %d bytes while it was copied", st.Size, copied)
	}
	w.stats.copied.Add(1)
	return nil
}

// copyRange has the kernel copy a large file, as far as it is able to.
func (w *worker) copyRange(ctx context.Context, dst, src int, size int64, able *abilities) (copied int64, err error) {
	for size > copyRangeMin && copied < size && !able.noCopyRange.Load() {
		if err := ctx.Err(); err != nil {
			return copied, err
		}
		n, err := unix.CopyFileRange(src, nil, dst, nil, int(min(size-copied, copyChunk)), 0)
		switch err {
		case nil:
			if n == 0 { // some file systems say so instead of refusing
				return copied, nil
			}
			copied += int64(n)
		case unix.EINTR:
		case unix.EOPNOTSUPP, unix.EXDEV, unix.ENOSYS, unix.EPERM, unix.EINVAL:
			able.noCopyRange.Store(true)
		default:
			return copied, fmt.Errorf("copy: %w", err)
		}
	}
	return copied, nil
}

// copyBuffered copies from the current offsets, which are at copied, up to size.
func (w *worker) copyBuffered(ctx context.Context, dst, src int, copied, size int64) (int64, error) {
	buf := w.buffer()
	for copied < size {
		if err := ctx.Err(); err != nil {
			return copied, err
		}
		n, err := unix.Read(src, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return copied, fmt.Errorf("read: %w", err)
		}
		if n == 0 {
			return copied, nil
		}
		if err := tree.WriteAll(dst, buf[:n]); err != nil {
			return copied, fmt.Errorf("write: %w", err)
		}
		copied += int64(n)
	}
	return copied, nil
}
