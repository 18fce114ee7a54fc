package storedb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Import places the files of a closure in a store and makes its paths valid
// there. Paths that are valid already are left alone, so that a second import
// of a closure does next to nothing. A store that does not exist is made, with
// all that any Nix from 2.8 on expects of one.
//
// The paths are made in a temporary directory in the store; once all are there
// they get their final names, and one database transaction makes them valid.
// After an error, and when ctx ends, the store is as it was before, but for
// what [Files] have completed: that stays in the temporary directory until the
// next import of Files takes it up. After SIGKILL no path is valid that is not
// complete, and the next import that has something to do removes what is left;
// but for the database that a new store was to have, Nix's garbage collector does,
// too.
//
// Nix and other imports may use the store meanwhile, in every way: paths are
// protected from the garbage collector by temporary roots and locked while they
// are made. What others hold is waited for until ctx ends. Only a Nix process
// that lives long, a daemon's for instance, may not notice new paths: it
// remembers which it has looked for in vain.
//
// What the caller can put right is reported as *InputError, and contents that
// differ from their registration as *VerifyError.
func Import(ctx context.Context, o Options) (Summary, error) {
	start := time.Now()
	o, err := o.withDefaults()
	if err != nil {
		return Summary{}, err
	}
	i := &importer{Options: o, summary: Summary{Paths: len(o.Closure.Paths), DryRun: o.DryRun, Method: o.Method}}
	if err := o.Closure.check(); err != nil {
		return Summary{}, err
	}
	if i.graph, err = newGraph(o.Closure); err != nil {
		return Summary{}, err
	}
	if o.DBImage != "" {
		// Before any file is copied.
		if err := isImageOf(o.DBImage, o.Closure.digest); err != nil {
			return Summary{}, err
		}
	}
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
	graph   *graph // of the closure
	dst     *destination
	db      *database  // of dst; nil as long as it is fresh
	missing []PathInfo // those that are not valid
	names   []string   // what they are called where they are made, see madeIn
	inPlace bool       // they are where they belong
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
	if len(valid) > 0 {
		store, err := os.Open(filepath.Join(i.Store, storeDir))
		if err != nil {
			return fmt.Errorf("open store: %w", err)
		}
		defer store.Close()
		if err := i.checkValid(store, valid); err != nil {
			return err
		}
	}
	switch {
	case i.Files != nil:
		return nil
	case i.RegisterOnly:
		return i.checkPresent(i.Store)
	}
	return i.checkPresent(i.From)
}

func (i *importer) databaseFile() string { return filepath.Join(i.Store, databaseDir, databaseName) }

// run imports.
func (i *importer) run(ctx context.Context) (err error) {
	i.report(PhaseLock, 0, 0)
	i.dst, err = openDestination(ctx, i.Store, patience{report: i.waiting})
	if err != nil {
		return err
	}
	defer func() {
		if i.db != nil {
			err = errors.Join(err, i.db.Close())
		}
		if err == nil {
			err = i.dst.close()
		} else {
			err = errors.Join(err, cmp.Or(i.dst.rollback(i.Files != nil), i.dst.close()))
		}
	}()
	if err := i.dst.checkGCRoot(i.GCRoot); err != nil {
		return err
	}
	// Before it is known what is valid: from here on it stays.
	if err := i.dst.roots.add(ctx, paths(i.Closure.Paths)...); err != nil {
		return err
	}
	if err := i.lookUp(ctx); err != nil {
		return err
	}
	if i.dst.fresh {
		err = i.makeFresh(ctx)
	} else {
		err = i.makeValid(ctx)
	}
	if err != nil {
		return err
	}
	if err := i.dst.setGCRoot(ctx, i.GCRoot, i.Closure); err != nil {
		return err
	}
	i.dst.commit()
	return nil
}

// lookUp finds out which paths are missing. In a store in use it locks them.
func (i *importer) lookUp(ctx context.Context) error {
	if i.dst.fresh {
		return i.findMissing(nil)
	}
	var err error
	if i.db, err = openDatabase(ctx, i.databaseFile()); err != nil {
		return err
	}
	valid, err := validPaths(ctx, i.db, i.Closure.Paths)
	if err != nil {
		return err
	}
	if err := i.findMissing(valid); err != nil {
		return err
	}
	if err := i.checkValid(i.dst.store, valid); err != nil {
		return err
	}
	return i.lockMissing(ctx)
}

// findMissing sets missing to the infos that are not among the valid ones.
func (i *importer) findMissing(valid map[string]int64) error {
	i.missing = slices.Clone(i.Closure.Paths)
	if i.Files == nil {
		// Large paths come first, so that none of them is left for one worker at
		// the end. Files may have an order of their own.
		slices.SortStableFunc(i.missing, func(a, b PathInfo) int { return cmp.Compare(b.NarSize, a.NarSize) })
	}
	i.names = make([]string, len(i.missing))
	i.dropValid(valid)
	return i.graph.checkOthers(valid)
}

// dropValid removes what is valid from missing.
func (i *importer) dropValid(valid map[string]int64) {
	n := 0
	i.summary.NarBytes = 0
	for k, info := range i.missing {
		if _, ok := valid[info.Path]; !ok {
			i.missing[n], i.names[n] = info, i.names[k]
			n++
			i.summary.NarBytes += info.NarSize
		}
	}
	i.missing, i.names = i.missing[:n], i.names[:n]
	i.summary.Placed = n
	i.summary.AlreadyValid = len(i.Closure.Paths) - n
}

// lockMissing locks the missing paths, of which others may make some valid until
// it is their turn to wait.
func (i *importer) lockMissing(ctx context.Context) error {
	if len(i.missing) == 0 {
		return nil
	}
	if i.Locked {
		return nil
	}
	bases := make([]string, len(i.missing))
	for n, info := range i.missing {
		bases[n] = baseName(info.Path)
	}
	slices.Sort(bases)
	if err := i.dst.locks.acquire(ctx, bases); err != nil {
		return err
	}
	valid, err := validPaths(ctx, i.db, i.missing)
	if err != nil {
		return err
	}
	i.dropValid(valid)
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

// waiting reports that something others hold has been waited for for a while.
func (i *importer) waiting(what string) { i.Progress(Progress{Phase: PhaseLock, Waiting: what}) }

func paths(infos []PathInfo) []string {
	paths := make([]string, len(infos))
	for n, info := range infos {
		paths[n] = info.Path
	}
	return paths
}
