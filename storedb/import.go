package storedb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vm-prebuild/nar"
)

// Import places the files of a closure in a store and makes its paths valid
// there. Paths that are valid already are left alone, so that a second import
// of a closure does next to nothing. A store that does not exist is made, with
// all that any Nix from 2.8 on expects of one.
//
// Files first get temporary names; once all are there they get their final ones
// within the database transaction that makes the paths valid. After an error,
// and when ctx ends, the store is as it was before. After SIGKILL no path is
// valid that is not complete, and the next import removes what is left.
//
// Imports wait for each other. Nix may read the store meanwhile; it must not
// collect garbage there nor build one of the closure's paths.
//
// What the caller can put right is reported as *InputError, and contents that
// differ from their registration as *VerifyError.
func Import(ctx context.Context, o Options) (Summary, error) {
	start := time.Now()
	o, err := o.withDefaults()
	if err != nil {
		return Summary{}, err
	}
	g, err := newGraph(o.Closure)
	if err != nil {
		return Summary{}, err
	}
	i := &importer{Options: o, graph: g, summary: Summary{Paths: len(o.Closure.Paths), DryRun: o.DryRun}}
	if o.DryRun {
		err = i.plan(ctx)
	} else {
		err = i.run(ctx)
	}
	if err != nil {
		return Summary{}, err
	}
	i.summary.Total = time.Since(start)
	return i.summary, nil
}

// importer is one import.
type importer struct {
	Options
	graph   *graph     // of the closure
	missing []PathInfo // those that are not valid, largest first
	summary Summary
}

// plan finds out what run would do, and changes nothing.
func (i *importer) plan(ctx context.Context) error {
	exists, err := hasDatabase(i.Store)
	if err != nil {
		return err
	}
	valid := map[string]int64{}
	if exists {
		err := readDatabase(ctx, i.databaseFile(), func(db *database) (err error) {
			valid, err = validPaths(ctx, db, i.Closure.Paths)
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := i.findMissing(valid); err != nil {
		return err
	}
	source, err := i.openSource()
	if err != nil {
		return err
	}
	return source.Close()
}

func (i *importer) databaseFile() string { return filepath.Join(i.Store, databaseDir, "db.sqlite") }

// run imports.
func (i *importer) run(ctx context.Context) (err error) {
	i.report(PhaseLock, 0, 0)
	dst, err := openDestination(ctx, i.Store)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, dst.rollback())
		}
		err = errors.Join(err, dst.close())
	}()
	valid := map[string]int64{}
	var db *database
	if !dst.fresh {
		if db, err = openDatabase(ctx, i.databaseFile()); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		if valid, err = validPaths(ctx, db, i.Closure.Paths); err != nil {
			return err
		}
	}
	if err := i.findMissing(valid); err != nil {
		return err
	}
	if len(i.missing) == 0 && !dst.fresh {
		return nil
	}
	source, err := i.openSource()
	if err != nil {
		return err
	}
	defer source.Close()
	if err := dst.differsFrom(source); err != nil {
		return err
	}
	if err := i.place(ctx, source, dst); err != nil {
		return err
	}
	if err := i.verify(ctx); err != nil {
		return err
	}
	return i.register(ctx, dst, db)
}

// findMissing sets missing to the infos that are not among the valid ones.
// Large paths come first, so that none of them is left for one worker at the
// end.
func (i *importer) findMissing(valid map[string]int64) error {
	i.missing = slices.DeleteFunc(slices.Clone(i.Closure.Paths), func(info PathInfo) bool {
		_, ok := valid[info.Path]
		return ok
	})
	slices.SortStableFunc(i.missing, func(a, b PathInfo) int { return cmp.Compare(b.NarSize, a.NarSize) })
	i.countMissing(i.missing)
	return i.graph.checkOthers(valid)
}

// countMissing notes in the summary which infos are new.
func (i *importer) countMissing(infos []PathInfo) {
	i.summary.AlreadyValid = len(i.Closure.Paths) - len(infos)
	i.summary.Placed = len(infos)
	i.summary.NarBytes = 0
	for _, info := range infos {
		i.summary.NarBytes += info.NarSize
	}
}

// openSource opens the source's directory of store paths and makes sure that it
// has the missing ones, before anything is written.
func (i *importer) openSource() (*os.File, error) {
	dir := filepath.Join(i.From, storeDir)
	source, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) && len(i.missing) > 0 {
		return nil, &InputError{File: dir, Reason: "no such directory", Hint: "give the root of the store that has the files", Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("open source store: %w", err)
	}
	for _, info := range i.missing {
		var st unix.Stat_t
		err := unix.Fstatat(int(source.Fd()), baseName(info.Path), &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			e := i.Closure.errorAt(info, "%s is not in the source store %s", info.Path, dir)
			e.Err, e.Hint = fs.ErrNotExist, "realise it there, or give the root of the store that has it"
			err = e
		} else if err != nil {
			err = fmt.Errorf("look for %s in the source store %s: %w", info.Path, dir, err)
		}
		if err != nil {
			return nil, errors.Join(err, source.Close())
		}
	}
	return source, nil
}

// place copies the missing paths to temporary names.
func (i *importer) place(ctx context.Context, source *os.File, dst *destination) error {
	start := time.Now()
	from, to := make([]string, len(i.missing)), i.temporaryNames()
	for n, info := range i.missing {
		from[n] = baseName(info.Path)
	}
	p := placer{method: i.Method, done: i.counter(PhasePlace)}
	if err := p.place(ctx, int(source.Fd()), int(dst.store.Fd()), from, to, i.Jobs); err != nil {
		return fmt.Errorf("copy files from %s to %s: %w", source.Name(), dst.store.Name(), err)
	}
	i.summary.Reflinked = p.stats.reflinked.Load()
	i.summary.Copied = p.stats.copied.Load()
	i.summary.HardLinked = p.stats.hardLinked.Load()
	i.summary.Place = time.Since(start)
	return nil
}

func (i *importer) temporaryNames() []string {
	names := make([]string, len(i.missing))
	for n := range names {
		names[n] = tempName(n)
	}
	return names
}

// verify hashes what has been placed, if that is wanted.
func (i *importer) verify(ctx context.Context) error {
	if i.Verify != VerifyHash {
		return nil
	}
	start := time.Now()
	done := i.counter(PhaseVerify)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(i.Jobs)
	for n, info := range i.missing {
		group.Go(func() error {
			hash, size, err := nar.Hash(ctx, filepath.Join(i.Store, storeDir, tempName(n)))
			if err != nil {
				return fmt.Errorf("verify %s: %w", info.Path, err)
			}
			if hash != info.NarHash || size != info.NarSize {
				return &VerifyError{Path: info.Path, WantHash: info.NarHash, GotHash: hash, WantBytes: info.NarSize, GotBytes: size}
			}
			done(n)
			return nil
		})
	}
	err := group.Wait()
	i.summary.Verify = time.Since(start)
	return err
}

// register makes the missing paths valid and gives them their final names, in
// one transaction. db is nil for a fresh store.
func (i *importer) register(ctx context.Context, dst *destination, db *database) (err error) {
	start := time.Now()
	i.report(PhaseRegister, 0, 0)
	outputs, err := readOutputs(ctx, int(dst.store.Fd()), i.missing, i.temporaryNames(), i.Jobs)
	if err != nil {
		return err
	}
	if dst.fresh {
		if db, err = dst.newDatabase(ctx); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
	}
	tx, err := db.begin(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			tx.Rollback()
		}
	}()
	// Nix may have made some of them valid while files were copied.
	valid, err := validPaths(ctx, db, i.missing)
	if err != nil {
		return err
	}
	names := map[string]string{}
	var infos []PathInfo
	for n, info := range i.missing {
		if _, ok := valid[info.Path]; ok {
			if err := removeTree(int(dst.store.Fd()), tempName(n)); err != nil {
				return err
			}
			continue
		}
		infos = append(infos, info)
		names[info.Path] = tempName(n)
	}
	g := i.graph
	if len(infos) < len(g.paths) {
		if g, err = newGraph(&Closure{Name: i.Closure.Name, Paths: infos}); err != nil {
			return err
		}
	}
	if err := insert(ctx, tx, g, outputs, valid, start.Unix()); err != nil {
		return err
	}
	for _, info := range infos {
		if err := dst.publish(names[info.Path], baseName(info.Path)); err != nil {
			return err
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	if dst.fresh {
		if err := db.seal(ctx); err != nil {
			return err
		}
		if err := dst.publishDatabase(); err != nil {
			return err
		}
	}
	dst.commit()
	i.countMissing(infos)
	i.summary.Register = time.Since(start)
	i.report(PhaseRegister, len(infos), i.summary.NarBytes)
	return nil
}

// counter starts a phase and returns a function that notes that missing path n
// has been through it; any goroutine may call that.
func (i *importer) counter(phase Phase) func(n int) {
	i.report(phase, 0, 0)
	var mu sync.Mutex
	var paths int
	var bytes int64
	return func(n int) {
		mu.Lock()
		defer mu.Unlock()
		paths++
		bytes += i.missing[n].NarSize
		i.report(phase, paths, bytes)
	}
}

func (i *importer) report(phase Phase, paths int, bytes int64) {
	i.Progress(Progress{Phase: phase, Paths: paths, TotalPaths: len(i.missing), Bytes: bytes, TotalBytes: i.summary.NarBytes})
}
