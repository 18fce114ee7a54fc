package storedb

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// insert registers the infos, whose references are among them or in valid, and
// the outputs of those that are derivations. Nothing is inserted twice.
func insert(ctx context.Context, tx *sql.Tx, infos []PathInfo, outputs map[string][]output, valid map[string]int64) error {
	var last int64
	if err := tx.QueryRowContext(ctx, "select coalesce(max(seq), 0) from sqlite_sequence where name = 'ValidPaths'").Scan(&last); err != nil {
		return fmt.Errorf("register paths: %w", err)
	}
	ids := make(map[string]int64, len(infos))
	now := time.Now().Unix()
	paths := batch{tx: tx, head: "insert into ValidPaths (id, path, hash, registrationTime, deriver, narSize) values ", columns: 6}
	for _, info := range infos {
		last++
		ids[info.Path] = last
		err := paths.add(ctx, last, info.Path, "sha256:"+hex.EncodeToString(info.NarHash[:]), now,
			sql.NullString{String: info.Deriver, Valid: info.Deriver != ""},
			sql.NullInt64{Int64: info.NarSize, Valid: info.NarSize != 0})
		if err != nil {
			return fmt.Errorf("register paths: %w", err)
		}
	}
	if err := paths.close(ctx); err != nil {
		return fmt.Errorf("register paths: %w", err)
	}
	references := batch{tx: tx, head: "insert into Refs (referrer, reference) values ", columns: 2}
	derivations := batch{tx: tx, head: "insert into DerivationOutputs (drv, id, path) values ", columns: 3}
	for _, info := range infos {
		for _, reference := range info.References {
			id, ok := ids[reference]
			if !ok {
				id = valid[reference]
			}
			if err := references.add(ctx, ids[info.Path], id); err != nil {
				return fmt.Errorf("register references: %w", err)
			}
		}
		for _, o := range outputs[info.Path] {
			if err := derivations.add(ctx, ids[info.Path], o.name, o.path); err != nil {
				return fmt.Errorf("register outputs of derivations: %w", err)
			}
		}
	}
	if err := references.close(ctx); err != nil {
		return fmt.Errorf("register references: %w", err)
	}
	if err := derivations.close(ctx); err != nil {
		return fmt.Errorf("register outputs of derivations: %w", err)
	}
	return nil
}

// batch collects rows and inserts many with one statement: half of the time of
// inserting them one by one goes into starting and ending statements.
type batch struct {
	tx      *sql.Tx
	head    string // the statement up to its first row
	columns int
	args    []any
	full    *sql.Stmt // of a whole batch
}

// batchRows keeps the arguments of the widest statement well below SQLite's
// limit of 32,766.
const batchRows = 500

func (b *batch) add(ctx context.Context, row ...any) error {
	b.args = append(b.args, row...)
	if len(b.args) < batchRows*b.columns {
		return nil
	}
	if b.full == nil {
		var err error
		if b.full, err = b.tx.PrepareContext(ctx, b.head+tuples(batchRows, b.columns)); err != nil {
			return err
		}
	}
	_, err := b.full.ExecContext(ctx, b.args...)
	b.args = b.args[:0]
	return err
}

// close inserts what is left. A statement that an error leaves open ends with
// the transaction.
func (b *batch) close(ctx context.Context) error {
	if b.full != nil {
		if err := b.full.Close(); err != nil {
			return err
		}
	}
	if len(b.args) == 0 {
		return nil
	}
	_, err := b.tx.ExecContext(ctx, b.head+tuples(len(b.args)/b.columns, b.columns), b.args...)
	return err
}

// tuple is a parenthesised list of n parameters.
func tuple(n int) string { return "(" + strings.Repeat("?,", n-1) + "?)" }

// tuples is a list of rows.
func tuples(rows, columns int) string {
	row := tuple(columns)
	return strings.Repeat(row+",", rows-1) + row
}
