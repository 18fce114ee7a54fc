package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vm-prebuild/cmd/internal/synthetic"
)

// mkfs makes file systems with the settings that their authors chose. Tables
// are written at once so that no kernel thread does so during a run.
var mkfs = map[string]string{
	"ext4":  `mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$IMAGE"`,
	"xfs":   `mkfs.xfs -q -f -m reflink=1 "$IMAGE"`,
	"btrfs": `mkfs.btrfs -q -f "$IMAGE"`,
}

// workspace is a mounted file system that a job is done on.
type workspace struct {
	*lab
	image, dir string
}

// env is how command lines know a workspace: WORK is the directory of the file
// system, and all else lies in it.
func (w *workspace) env(j *job) []string {
	in := func(elem ...string) string { return filepath.Join(append([]string{w.dir}, elem...)...) }
	return []string{
		"LAB=" + w.lab.dir, "WORK=" + w.dir, "SOURCE=" + in("source"), "TARGET=" + in("target"), "CACHE=" + in("cache"),
		"INFO=" + in(j.info, synthetic.ClosureInfoDir), "IMAGE=" + in("db-image"),
		"TMPDIR=" + in("tmp"), "HOME=" + in("tmp"),
	}
}

// golden makes an image of a file system that runs of j get copies of. It also
// returns the contenders for which that could not be prepared.
func (l *lab) golden(ctx context.Context, j *job) (image string, failed map[string]error, err error) {
	image = l.path("images/golden")
	size := 4<<30 + 4*j.bytes() + 64<<10*j.files() // of which only what is written to takes memory
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return "", nil, err
	}
	if err := os.Truncate(image, size); err != nil {
		return "", nil, err
	}
	if _, err := l.output(ctx, mkfs[j.fs], "IMAGE="+image); err != nil {
		return "", nil, fmt.Errorf("make a file system: %w", err)
	}
	w, err := l.mount(ctx, image)
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, w.unmount(context.WithoutCancel(ctx))) }()
	if err := w.fill(ctx, j); err != nil {
		return "", nil, fmt.Errorf("prepare the file system: %w", err)
	}
	failed = map[string]error{}
	for _, c := range j.contenders {
		if _, err := w.output(ctx, c.prepare, w.env(j)...); err != nil {
			failed[c.name] = fmt.Errorf("prepare: %w", err)
		}
	}
	return image, failed, nil
}

// fresh mounts a copy of an image.
func (l *lab) fresh(ctx context.Context, golden string) (*workspace, error) {
	image := l.path("images/run")
	if _, err := l.output(ctx, `cp --sparse=auto "$GOLDEN" "$IMAGE"`, "GOLDEN="+golden, "IMAGE="+image); err != nil {
		return nil, fmt.Errorf("copy the file system: %w", err)
	}
	return l.mount(ctx, image)
}

func (l *lab) mount(ctx context.Context, image string) (*workspace, error) {
	w := &workspace{lab: l, image: image, dir: l.path("w")}
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return nil, err
	}
	if _, err := l.output(ctx, `mount -o loop "$IMAGE" "$DIR"`, "IMAGE="+image, "DIR="+w.dir); err != nil {
		return nil, fmt.Errorf("mount the file system: %w", err)
	}
	return w, nil
}

// unmount unmounts the workspace, which detaches the loop device.
func (w *workspace) unmount(ctx context.Context) error {
	if _, err := w.output(ctx, `umount "$DIR"`, "DIR="+w.dir); err != nil {
		return fmt.Errorf("unmount the file system: %w", err)
	}
	return nil
}

// discard unmounts the workspace and gives its memory back.
func (w *workspace) discard(ctx context.Context) error {
	if err := w.unmount(ctx); err != nil {
		return err
	}
	return os.Remove(w.image)
}

// fill puts the closures of j on a new file system, and what else j needs.
func (w *workspace) fill(ctx context.Context, j *job) error {
	for name, spec := range j.closures {
		// In a process of its own, since children's peaks of memory are reported
		// as no lower than ours.
		_, err := w.output(ctx, `bench generate "$ROOT" --paths="$PATHS" --files="$FILES" --bytes="$BYTES" --seed="$SEED" $EVEN`,
			"ROOT="+filepath.Join(w.dir, name), "PATHS="+strconv.Itoa(spec.Paths),
			"FILES="+strconv.Itoa(spec.Files), "BYTES="+strconv.FormatInt(spec.Bytes, 10),
			"SEED="+strconv.FormatUint(spec.Seed, 10), "EVEN="+map[bool]string{true: "--even"}[spec.Even])
		if err != nil {
			return err
		}
	}
	script := `mkdir "$TMPDIR"; chmod 1777 "$TMPDIR"; ` + j.prepare
	_, err := w.output(ctx, script, w.env(j)...)
	return err
}

// settle brings the machine to the same state before each run: all files in the
// page cache, as those of a store that is in use are, and nothing left to write.
// The pause is for what the kernel does afterwards.
func (w *workspace) settle(ctx context.Context, pause time.Duration) error {
	// Reading one by one would take longer than all that is measured.
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	err := filepath.WalkDir(w.dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = groupCtx.Err()
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		group.Go(func() error { return readFile(path) })
		return nil
	})
	if err = cmp.Or(group.Wait(), err); err != nil {
		return fmt.Errorf("read the file system: %w", err)
	}
	unix.Sync()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pause):
		return nil
	}
}

// readFile brings a file into the page cache.
func readFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}
