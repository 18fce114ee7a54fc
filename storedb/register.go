package storedb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// register makes the missing paths valid and gives them their final names.
func (i *importer) register(ctx context.Context) error {
	start := time.Now()
	i.report(PhaseRegister, 0, 0)
	var outputs map[string][]output
	if len(i.missing) > 0 {
		var err error
		if outputs, err = readOutputs(ctx, int(i.madeIn().Fd()), i.missing, i.names, i.Jobs); err != nil {
			return err
		}
	}
	if i.dst.fresh {
		if err := i.registerFresh(ctx, outputs, start); err != nil {
			return err
		}
	}
	if !i.dst.fresh {
		if err := i.registerLive(ctx, outputs, start); err != nil {
			return err
		}
	}
	i.summary.Register = time.Since(start)
	i.report(PhaseRegister, len(i.missing), i.summary.NarBytes)
	return nil
}

// registerFresh gives a store without a database one in which the paths are
// valid. If somebody else has given it one meanwhile, it opens that.
func (i *importer) registerFresh(ctx context.Context, outputs map[string][]output, now time.Time) error {
	file, err := i.dst.newDatabase()
	if err != nil {
		return err
	}
	if err := i.writeDatabase(ctx, file, outputs, now); err != nil {
		return err
	}
	if err := i.dst.lockDatabase(ctx); err != nil {
		return err
	}
	if i.dst.fresh {
		if err := i.publish(); err != nil {
			return err
		}
		return i.dst.publishDatabase()
	}
	if err := os.RemoveAll(filepath.Dir(file)); err != nil {
		return fmt.Errorf("remove a database that is not needed: %w", err)
	}
	if i.db, err = openDatabase(ctx, i.databaseFile()); err != nil {
		return err
	}
	return i.lockMissing(ctx)
}

// writeDatabase writes the database of a fresh store.
func (i *importer) writeDatabase(ctx context.Context, file string, outputs map[string][]output, now time.Time) error {
	db, err := createDatabase(ctx, file)
	if err != nil {
		return err
	}
	tx, err := db.begin(ctx)
	if err == nil {
		if err = insert(ctx, tx, i.graph, outputs, nil, now.Unix()); err == nil {
			err = tx.Commit(ctx)
		}
	}
	if err != nil {
		return errors.Join(err, db.Close())
	}
	return db.seal(ctx)
}

// registerLive registers the paths in a database that others use too.
func (i *importer) registerLive(ctx context.Context, outputs map[string][]output, now time.Time) (err error) {
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
	if err := insert(ctx, tx, graph, outputs, valid, now.Unix()); err != nil {
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
	if i.RegisterOnly {
		return nil
	}
	for n, info := range i.missing {
		if err := i.dst.publish(i.names[n], baseName(info.Path)); err != nil {
			return err
		}
	}
	return nil
}
