package storedb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

// makeValid makes the missing paths and registers them in a store that others
// use, too.
func (i *importer) makeValid(ctx context.Context) error {
	if len(i.missing) > 0 {
		if err := i.makePaths(ctx); err != nil {
			return err
		}
	}
	if len(i.missing) == 0 && !i.Reregister {
		return nil // or others have made them meanwhile
	}
	done := i.registering()
	if err := i.registerLive(ctx); err != nil {
		return err
	}
	done()
	return nil
}

// makeFresh makes the missing paths of a store that has no database and, at the
// same time, the database in which they are valid. If somebody else has given
// the store one meanwhile, they are registered in that.
func (i *importer) makeFresh(ctx context.Context) error {
	file, err := i.dst.newDatabase()
	if err != nil {
		return err
	}
	var done func()
	var outputs map[string][]output
	var db *draft // nil if the database comes from an image
	group, groupCtx := errgroup.WithContext(ctx)
	dbCtx, notNeeded := context.WithCancel(groupCtx)
	defer notNeeded()
	group.Go(func() (err error) {
		if len(i.missing) > 0 {
			if err := i.makePaths(groupCtx); err != nil {
				return err
			}
		}
		done = i.registering()
		if !i.dst.fresh {
			notNeeded()
			return nil
		}
		if i.DBImage == "" {
			outputs, err = i.outputs(groupCtx)
		}
		return err
	})
	group.Go(func() (err error) {
		if i.DBImage != "" {
			err = copyImage(dbCtx, i.DBImage, file, func() (digest, int, error) {
				return i.Closure.digest, len(i.Closure.Paths), nil
			})
		} else {
			db, err = newDraft(dbCtx, file, i.graph, time.Now().Unix())
		}
		if dbCtx.Err() != nil && groupCtx.Err() == nil {
			return nil // not needed
		}
		return err
	})
	err = group.Wait()
	if err == nil && i.dst.fresh {
		if db != nil {
			err, db = db.complete(ctx, outputs), nil
		}
		if err == nil {
			err = i.dst.lockDatabase(ctx)
		}
	}
	if db != nil {
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		return err
	}
	if i.dst.fresh {
		if err = i.publish(); err == nil {
			err = i.dst.publishDatabase()
		}
	} else {
		err = i.joinOthers(ctx, file)
	}
	if err != nil {
		return err
	}
	done()
	return nil
}

// joinOthers registers the missing paths in the database that somebody else has
// made, instead of the one in file.
func (i *importer) joinOthers(ctx context.Context, file string) error {
	if err := os.RemoveAll(filepath.Dir(file)); err != nil {
		return fmt.Errorf("remove a database that is not needed: %w", err)
	}
	if i.db == nil {
		var err error
		if i.db, err = openDatabase(ctx, i.databaseFile()); err != nil {
			return err
		}
		if err := i.lockMissing(ctx); err != nil {
			return err
		}
	}
	return i.registerLive(ctx)
}

// registering begins the last phase, and returns a function that ends it.
func (i *importer) registering() (done func()) {
	start := time.Now()
	i.report(PhaseRegister, 0, 0)
	return func() {
		i.summary.Register = time.Since(start)
		i.report(PhaseRegister, len(i.missing), i.summary.NarBytes)
	}
}

// outputs reads the derivations among the missing paths.
func (i *importer) outputs(ctx context.Context) (map[string][]output, error) {
	if len(i.missing) == 0 {
		return nil, nil
	}
	return readOutputs(ctx, int(i.madeIn().Fd()), i.missing, i.names, i.Jobs)
}

// registerLive registers the paths in a database that others use too.
func (i *importer) registerLive(ctx context.Context) (err error) {
	outputs, err := i.outputs(ctx)
	if err != nil {
		return err
	}
	tx, err := i.db.begin(ctx)
	if err != nil {
		return err
	}
	defer func() { //nolint:contextcheck // a transaction is undone when ctx has ended, too
		if err != nil {
			tx.Rollback()
		}
	}()
	// nix-store --load-db locks no paths.
	valid, err := validPaths(ctx, i.db, i.Closure.Paths)
	if err != nil {
		return err
	}
	i.dropValid(valid)
	graph := i.graph
	if !i.Reregister {
		// What is valid would be overwritten.
		if graph, err = newGraph(&Closure{Name: i.Closure.Name, Paths: i.missing}); err != nil {
			return err
		}
	}
	ids, err := insert(ctx, tx, graph, valid, time.Now().Unix())
	if err != nil {
		return err
	}
	if err := insertOutputs(ctx, tx, graph, outputs, ids, valid); err != nil {
		return err
	}
	if err := i.publish(); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	i.dst.commit() // whatever else fails
	return nil
}

// publish gives the missing paths their names in the store.
func (i *importer) publish() error {
	if i.inPlace {
		return nil
	}
	for n, info := range i.missing {
		if err := i.dst.publish(i.names[n], baseName(info.Path)); err != nil {
			return err
		}
	}
	return nil
}
