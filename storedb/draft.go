package storedb

import (
	"context"
	"errors"
)

// A draft is the database of a store that has none, while it is being made. In
// it the paths of a closure are valid, and nothing else. Most of it needs only
// the registration, and can be written while files are still being copied.
type draft struct {
	*transaction
	graph *graph
	ids   []int64 // of the paths of graph
}

// newDraft makes a database with the paths of g and their references.
func newDraft(ctx context.Context, file string, g *graph, when int64) (*draft, error) {
	db, err := createDatabase(ctx, file)
	if err != nil {
		return nil, err
	}
	tx, err := db.begin(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	d := &draft{transaction: tx, graph: g}
	if d.ids, err = insert(ctx, tx, g, nil, when); err == nil {
		if err = d.exec(ctx, referenceIndex); err != nil {
			err = d.failed("complete", err)
		}
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// complete adds the outputs of derivations and closes the database, which then
// is one file that Nix has nothing to add to.
func (d *draft) complete(ctx context.Context, outputs map[string][]output) error {
	err := insertOutputs(ctx, d.transaction, d.graph, outputs, d.ids, nil)
	if err == nil {
		err = d.Commit(ctx)
	}
	if err == nil {
		if err = d.exec(ctx, outputsIndex+"pragma journal_mode = wal;"); err != nil {
			err = d.failed("complete", err)
		}
	}
	return errors.Join(err, d.Close())
}

// writeDatabase makes a database in which the paths of g are valid, and nothing
// else.
func writeDatabase(ctx context.Context, file string, g *graph, outputs map[string][]output, when int64) error {
	d, err := newDraft(ctx, file, g, when)
	if err != nil {
		return err
	}
	return d.complete(ctx, outputs)
}
