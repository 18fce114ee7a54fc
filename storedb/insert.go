package storedb

import (
	"context"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// insert registers the infos, whose references are among them or in valid, and
// the outputs of those that are derivations. when is the time of registration,
// in seconds since the epoch.
//
// An info that is in valid overwrites what is registered, as with nix-store
// --load-db: the deriver and the time of registration stay, and references are
// added to those that there are.
func insert(ctx context.Context, tx *transaction, infos []PathInfo, outputs map[string][]output, valid map[string]int64, when int64) error {
	// Rows in the order of their index are cheaper to insert.
	if !slices.IsSortedFunc(infos, comparePaths) {
		infos = slices.SortedFunc(slices.Values(infos), comparePaths)
	}
	ids, err := insertPaths(ctx, tx, infos, valid, when)
	if err == nil {
		err = insertReferences(ctx, tx, infos, ids, valid)
	}
	if err == nil {
		err = insertOutputs(ctx, tx, infos, outputs, ids)
	}
	if err != nil {
		return tx.failed("register paths in", err)
	}
	return nil
}

func comparePaths(a, b PathInfo) int { return strings.Compare(a.Path, b.Path) }

// insertPaths returns the row ids of those that are new.
func insertPaths(ctx context.Context, tx *transaction, infos []PathInfo, valid map[string]int64, when int64) (map[string]int64, error) {
	var last int64
	err := tx.query(ctx, "select coalesce(max(seq), 0) from sqlite_sequence where name = 'ValidPaths'", nil, func(row []driver.Value) (err error) {
		last, err = integer(row[0])
		return err
	})
	if err != nil {
		return nil, err
	}
	ids := make(map[string]int64, len(infos))
	rows := newBatch(tx, "insert into ValidPaths (id, path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca) values ", 9)
	for i := range infos {
		info := &infos[i]
		hash, narSize := databaseHash(info.NarHash), nullIf(info.NarSize == 0, info.NarSize)
		ultimate := nullIf(!info.Ultimate, int64(1))
		sigs, ca := nullIf(len(info.Sigs) == 0, strings.Join(info.Sigs, " ")), nullIf(info.CA == "", info.CA)
		if id, ok := valid[info.Path]; ok {
			err = tx.exec(ctx, "update ValidPaths set narSize = ?, hash = ?, ultimate = ?, sigs = ?, ca = ? where id = ?",
				narSize, hash, ultimate, sigs, ca, id)
		} else {
			last++
			ids[info.Path] = last
			err = rows.add(ctx, last, info.Path, hash, when, nullIf(info.Deriver == "", info.Deriver), narSize, ultimate, sigs, ca)
		}
		if err != nil {
			return nil, err
		}
	}
	return ids, rows.close(ctx)
}

func insertReferences(ctx context.Context, tx *transaction, infos []PathInfo, ids, valid map[string]int64) error {
	rowID := func(path string) (int64, bool) {
		if id, ok := ids[path]; ok {
			return id, true
		}
		id, ok := valid[path]
		return id, ok
	}
	rows := newBatch(tx, "insert or ignore into Refs (referrer, reference) values ", 2)
	for i := range infos {
		info := &infos[i]
		id, _ := rowID(info.Path)
		referrer := driver.Value(id)
		for _, reference := range info.References {
			id, ok := rowID(reference)
			if !ok {
				return fmt.Errorf("%s refers to %s, which is not valid", info.Path, reference)
			}
			if err := rows.add(ctx, referrer, id); err != nil {
				return err
			}
		}
	}
	return rows.close(ctx)
}

// insertOutputs gives derivations their outputs, if they are new.
func insertOutputs(ctx context.Context, tx *transaction, infos []PathInfo, outputs map[string][]output, ids map[string]int64) error {
	rows := newBatch(tx, "insert into DerivationOutputs (drv, id, path) values ", 3)
	for i := range infos {
		id, ok := ids[infos[i].Path]
		if !ok {
			continue
		}
		for _, o := range outputs[infos[i].Path] {
			if err := rows.add(ctx, id, o.name, o.path); err != nil {
				return err
			}
		}
	}
	return rows.close(ctx)
}

// databaseHash is the form that hashes have in the database.
func databaseHash(h Hash) string {
	buf := make([]byte, len(hashPrefix)+2*len(h))
	hex.Encode(buf[copy(buf, hashPrefix):], h[:])
	return string(buf)
}

const hashPrefix = "sha256:"

func nullIf(null bool, v driver.Value) driver.Value {
	if null {
		return nil
	}
	return v
}

// integer is a value of a column that must not have anything else.
func integer(v driver.Value) (int64, error) {
	n, ok := v.(int64)
	if !ok {
		return 0, fmt.Errorf("%v is not an integer", v)
	}
	return n, nil
}

// batch collects rows and inserts many with one statement: half of the time of
// inserting them one by one goes into starting and ending statements.
type batch struct {
	tx      *transaction
	head    string // the statement up to its first row
	columns int
	args    []driver.NamedValue
	full    driver.StmtQueryContext // of a whole batch
}

// batchRows keeps the arguments of the widest statement well below SQLite's
// limit of 32,766.
const batchRows = 500

func newBatch(tx *transaction, head string, columns int) *batch {
	return &batch{tx: tx, head: head, columns: columns, args: make([]driver.NamedValue, 0, batchRows*columns)}
}

func (b *batch) add(ctx context.Context, row ...driver.Value) error {
	for _, v := range row {
		b.args = append(b.args, driver.NamedValue{Ordinal: len(b.args) + 1, Value: v})
	}
	if len(b.args) < cap(b.args) {
		return nil
	}
	if b.full == nil {
		var err error
		if b.full, err = b.prepare(ctx); err != nil {
			return err
		}
	}
	return b.insert(ctx, b.full)
}

func (b *batch) prepare(ctx context.Context) (driver.StmtQueryContext, error) {
	stmt, err := b.tx.PrepareContext(ctx, b.head+tuples(len(b.args)/b.columns, b.columns))
	if err != nil {
		return nil, err
	}
	return stmt.(driver.StmtQueryContext), nil
}

// insert executes the statement as a query, which has no rows: of those the
// driver passes all arguments to SQLite at once.
func (b *batch) insert(ctx context.Context, stmt driver.StmtQueryContext) error {
	rows, err := stmt.QueryContext(ctx, b.args)
	if err != nil {
		return err
	}
	b.args = b.args[:0]
	return rows.Close()
}

// close inserts what is left. What an error leaves open ends with the
// connection.
func (b *batch) close(ctx context.Context) error {
	if b.full != nil {
		if err := b.full.(driver.Stmt).Close(); err != nil {
			return err
		}
	}
	if len(b.args) == 0 {
		return nil
	}
	stmt, err := b.prepare(ctx)
	if err != nil {
		return err
	}
	return errors.Join(b.insert(ctx, stmt), stmt.(driver.Stmt).Close())
}

// tuple is a parenthesised list of n parameters.
func tuple(n int) string { return "(" + strings.Repeat("?,", n-1) + "?)" }

// tuples is a list of rows.
func tuples(rows, columns int) string {
	row := tuple(columns)
	return strings.Repeat(row+",", rows-1) + row
}
