package storedb

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// register makes the missing paths valid and gives them their final names.
func (i *importer) register(ctx context.Context) error {
	start := time.Now()
	i.report(PhaseRegister, 0, 0)
	if i.dst.fresh {
		if err := i.registerFresh(ctx, start); err != nil {
			return err
		}
	}
	if !i.dst.fresh {
		if err := i.registerLive(ctx, start); err != nil {
			return err
		}
	}
	i.summary.Register = time.Since(start)
	i.report(PhaseRegister, len(i.missing), i.summary.NarBytes)
	return nil
}

// registerFresh gives a store without a database one in which the paths are
// valid. If somebody else has given it one meanwhile, it opens that.
func (i *importer) registerFresh(ctx context.Context, now time.Time) error {
	file, err := i.dst.newDatabase()
	if err != nil {
		return err
	}
	if i.DBImage != "" {
		err = copyImage(ctx, i.DBImage, file, func() ([sha256.Size]byte, int, error) {
			return i.Closure.digest, len(i.Closure.Paths), nil
		})
	} else {
		err = i.writeDatabase(ctx, file, now)
	}
	if err != nil {
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
func (i *importer) writeDatabase(ctx context.Context, file string, now time.Time) error {
	outputs, err := i.outputs(ctx)
	if err != nil {
		return err
	}
	return writeDatabase(ctx, file, i.graph, outputs, now.Unix())
}

// outputs reads the derivations among the missing paths.
func (i *importer) outputs(ctx context.Context) (map[string][]output, error) {
	if len(i.missing) == 0 {
		return nil, nil
	}
	return readOutputs(ctx, int(i.madeIn().Fd()), i.missing, i.names, i.Jobs)
}

// registerLive registers the paths in a database that others use too.
func (i *importer) registerLive(ctx context.Context, now time.Time) (err error) {
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
