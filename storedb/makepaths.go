package storedb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vm-prebuild/nar"
	"vm-prebuild/nar/tree"
)

// makePaths brings the files of the missing paths into the store.
func (i *importer) makePaths(ctx context.Context) error {
	start := time.Now()
	var err error
	switch {
	case i.RegisterOnly:
		i.inPlace, err = true, i.checkPresent(i.Store)
	case i.Files != nil:
		err = i.fetch(ctx)
	default:
		err = i.place(ctx)
	}
	i.summary.Place = time.Since(start)
	if err != nil {
		return err
	}
	if i.inPlace {
		for n, info := range i.missing {
			i.names[n] = baseName(info.Path)
		}
	}
	if i.Files != nil {
		return nil // they have checked what they have placed
	}
	return i.verify(ctx)
}

// openTempDir gets a temporary directory, and names for the paths in it.
func (i *importer) openTempDir(ctx context.Context) error {
	for n := range i.names {
		i.names[n] = partialName(n)
	}
	return i.dst.openTempDir(ctx, i.db, i.Files != nil)
}

// madeIn is the open directory that has the missing paths under their names.
func (i *importer) madeIn() *os.File {
	if i.inPlace {
		return i.dst.store
	}
	return i.dst.temp.File
}

// checkPresent makes sure that the store below root has the files of the missing
// paths, before any file is made.
func (i *importer) checkPresent(root string) error {
	dir := filepath.Join(root, storeDir)
	store, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) && len(i.missing) > 0 {
		return &InputError{File: dir, Reason: "no such directory", Hint: "give the root of the store that has the files", Err: err}
	}
	if err != nil {
		return fmt.Errorf("open store that has the files: %w", err)
	}
	defer store.Close()
	for _, info := range i.missing {
		var st unix.Stat_t
		err := unix.Fstatat(int(store.Fd()), baseName(info.Path), &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			e := i.Closure.errorAt(info, "%s is not in the store %s", info.Path, dir)
			e.Err, e.Hint = fs.ErrNotExist, "realise it there, or give the root of the store that has it"
			return e
		}
		if err != nil {
			return fmt.Errorf("look for %s in the store %s: %w", info.Path, dir, err)
		}
	}
	return nil
}

// place brings the missing paths from another store.
func (i *importer) place(ctx context.Context) error {
	if err := i.checkPresent(i.From); err != nil {
		return err
	}
	source, err := os.Open(filepath.Join(i.From, storeDir))
	if err != nil {
		return fmt.Errorf("open source store: %w", err)
	}
	defer source.Close()
	if err := i.dst.differsFrom(source); err != nil {
		return err
	}
	switch i.Method {
	case MethodOverlay, MethodBind:
		i.inPlace = true
		return i.mount(ctx, source)
	case MethodAuto, MethodSnapshot:
		err := i.snapshot(ctx, source)
		if e := new(MethodError); i.Method == MethodSnapshot || !errors.As(err, &e) {
			i.inPlace = true
			return err
		}
	case MethodReflink, MethodHardLink, MethodCopy:
	}
	return i.copy(ctx, source)
}

// copy copies the missing paths from the open directory of another store.
func (i *importer) copy(ctx context.Context, source *os.File) error {
	if err := i.openTempDir(ctx); err != nil {
		return err
	}
	from := make([]string, len(i.missing))
	for n, info := range i.missing {
		from[n] = baseName(info.Path)
	}
	p := placer{method: i.Method, done: i.counter(PhasePlace)}
	if err := p.place(ctx, int(source.Fd()), int(i.dst.temp.Fd()), from, i.names, i.Jobs); err != nil {
		return fmt.Errorf("copy files from %s to %s: %w", source.Name(), i.dst.store.Name(), readOnlyHint(err, i.dst.store.Name()))
	}
	i.summary.Reflinked = p.stats.reflinked.Load()
	i.summary.Copied = p.stats.copied.Load()
	i.summary.HardLinked = p.stats.hardLinked.Load()
	return nil
}

// fetch has Files place the missing paths, but for those that an interrupted
// import has left complete.
func (i *importer) fetch(ctx context.Context) error {
	if err := i.openTempDir(ctx); err != nil {
		return err
	}
	done := i.counter(PhasePlace)
	left, err := i.takeUp(ctx, done)
	if err != nil {
		return err
	}
	if f, ok := i.Files.(ExpectingFiles); ok {
		infos := make([]PathInfo, len(left))
		for k, n := range left {
			infos[k] = i.missing[n]
		}
		f.Expect(infos)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(i.Jobs)
	for _, n := range left {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := i.fetchOne(ctx, n); err != nil {
				return fmt.Errorf("place %s: %w", i.missing[n].Path, readOnlyHint(err, i.dst.store.Name()))
			}
			done(n)
			return nil
		})
	}
	return group.Wait()
}

// fetchOne places a path, which has its base name when it is complete.
func (i *importer) fetchOne(ctx context.Context, n int) error {
	temp, base := i.dst.temp.File, baseName(i.missing[n].Path)
	if err := i.Files.Place(ctx, i.missing[n], temp, i.names[n]); err != nil {
		return err
	}
	if err := unix.Renameat(int(temp.Fd()), i.names[n], int(temp.Fd()), base); err != nil {
		return &fs.PathError{Op: "rename", Path: i.names[n], Err: err}
	}
	i.names[n] = base
	return nil
}

// takeUp takes up what an interrupted import has completed, as far as it is
// still what it should be. It returns the indices of the other missing paths.
func (i *importer) takeUp(ctx context.Context, done func(n int)) (left []int, err error) {
	var mu sync.Mutex
	good := map[int]bool{}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(i.Jobs)
	for n, info := range i.missing {
		base := baseName(info.Path)
		if !i.dst.temp.complete[base] {
			continue
		}
		group.Go(func() error {
			if err := i.check(groupCtx, VerifyHash, info, base); err != nil {
				if err := ctx.Err(); err != nil {
					return err
				}
				return tree.Remove(int(i.dst.temp.Fd()), base)
			}
			i.names[n] = base
			mu.Lock()
			good[n] = true
			mu.Unlock()
			done(n)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("take up an interrupted import: %w", err)
	}
	i.summary.Resumed = len(good)
	for n := range i.missing {
		if !good[n] {
			left = append(left, n)
		}
	}
	return left, nil
}

// verify checks the missing paths, as far as that is wanted.
func (i *importer) verify(ctx context.Context) error {
	if i.Verify == VerifyNone {
		return nil
	}
	start := time.Now()
	done := i.counter(PhaseVerify)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(i.Jobs)
	for n, info := range i.missing {
		group.Go(func() error {
			if err := i.check(ctx, i.Verify, info, i.names[n]); err != nil {
				return err
			}
			done(n)
			return nil
		})
	}
	err := group.Wait()
	i.summary.Verify = time.Since(start)
	return err
}

// check compares the tree name, where paths are made, with what info says.
func (i *importer) check(ctx context.Context, how Verify, info PathInfo, name string) error {
	file := filepath.Join(i.madeIn().Name(), name)
	if how == VerifySize {
		size, err := nar.Size(ctx, file)
		if err != nil {
			return fmt.Errorf("verify %s: %w", info.Path, err)
		}
		if size != info.NarSize && info.NarSize != 0 {
			return &VerifyError{Path: info.Path, WantBytes: info.NarSize, GotBytes: size}
		}
		return nil
	}
	hash, size, err := nar.Hash(ctx, file)
	if err != nil {
		return fmt.Errorf("verify %s: %w", info.Path, err)
	}
	if hash != info.NarHash || size != info.NarSize && info.NarSize != 0 {
		return &VerifyError{Path: info.Path, WantHash: info.NarHash, GotHash: hash, WantBytes: info.NarSize, GotBytes: size}
	}
	return nil
}
