package storedb

import (
	"context"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// insert registers the paths of g, which refer to each other and to valid ones.
// when is the time of registration, in seconds since the epoch. It returns the
// row ids of all paths of g. Their derivations have no outputs yet.
//
// A path of g that is valid already is overwritten, as by nix-store --load-db:
// its deriver and time of registration stay, and references are added to those
// that there are.
func insert(ctx context.Context, tx *transaction, g *graph, valid map[string]int64, when int64) ([]int64, error) {
	if err := g.checkOthers(valid); err != nil {
		return nil, err
	}
	ids, err := insertPaths(ctx, tx, g, valid, when)
	if err == nil {
		err = insertReferences(ctx, tx, g, ids, valid)
	}
	if err != nil {
		return nil, tx.failed("register paths in", err)
	}
	return ids, nil
}

// insertPaths returns the row ids of all paths of g. Rows in the order of their
// index, which is that of g, are cheaper to insert.
func insertPaths(ctx context.Context, tx *transaction, g *graph, valid map[string]int64, when int64) ([]int64, error) {
	var last int64
	err := tx.query(ctx, "select coalesce(max(seq), 0) from sqlite_sequence where name = 'ValidPaths'", nil, func(row []driver.Value) (err error) {
		last, err = integer(row[0])
		return err
	})
	if err != nil {
		return nil, err
	}
	ids := make([]int64, len(g.paths))
	rows := newBatch(tx, "insert into ValidPaths (id, path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca) values ", 9)
	defer rows.release()
	for i := range g.paths {
		info := &g.paths[i]
		hash, narSize := databaseHash(info.NarHash), nullIf(info.NarSize == 0, info.NarSize)
		ultimate := nullIf(!info.Ultimate, int64(1))
		sigs, ca := nullIf(len(info.Sigs) == 0, strings.Join(info.Sigs, " ")), nullIf(info.CA == "", info.CA)
		if id, ok := valid[info.Path]; ok {
			ids[i] = id
			err = tx.exec(ctx, "update ValidPaths set narSize = ?, hash = ?, ultimate = ?, sigs = ?, ca = ? where id = ?",
				narSize, hash, ultimate, sigs, ca, id)
		} else {
			last++
			ids[i] = last
			err = rows.add(ctx, last, info.Path, hash, when, nullIf(info.Deriver == "", info.Deriver), narSize, ultimate, sigs, ca)
		}
		if err != nil {
			return nil, err
		}
	}
	return ids, rows.close(ctx)
}

func insertReferences(ctx context.Context, tx *transaction, g *graph, ids []int64, valid map[string]int64) error {
	rows := newBatch(tx, "insert or ignore into Refs (referrer, reference) values ", 2)
	defer rows.release()
	for i := range g.paths {
		referrer := driver.Value(ids[i])
		for _, target := range g.references(int32(i)) {
			var id int64
			if target >= 0 {
				id = ids[target]
			} else {
				id = valid[g.others[^target]]
			}
			if err := rows.add(ctx, referrer, id); err != nil {
				return err
			}
		}
	}
	return rows.close(ctx)
}

// insertOutputs gives derivations of g that were not valid their outputs.
func insertOutputs(ctx context.Context, tx *transaction, g *graph, outputs map[string][]output, ids []int64, valid map[string]int64) error {
	rows := newBatch(tx, "insert into DerivationOutputs (drv, id, path) values ", 3)
	defer rows.release()
	for i := range g.paths {
		path := g.paths[i].Path
		if _, ok := valid[path]; ok || !isDerivation(path) {
			continue
		}
		for _, o := range outputs[path] {
			if err := rows.add(ctx, ids[i], o.name, o.path); err != nil {
				return tx.failed("register outputs in", err)
			}
		}
	}
	if err := rows.close(ctx); err != nil {
		return tx.failed("register outputs in", err)
	}
	return nil
}

// databaseHash is the form that hashes have in the database.
func databaseHash(h Hash) string {
	buf := make([]byte, len(hashPrefix)+2*len(h))
	hex.Encode(buf[copy(buf, hashPrefix):], h[:])
	return string(buf)
}

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

// release closes the statement, in any case: a connection does not end as long as
// one of its statements is open.
func (b *batch) release() {
	if b.full != nil {
		_ = b.full.(driver.Stmt).Close() // it repeats the error of its last execution
		b.full = nil
	}
}

// close inserts what is left.
func (b *batch) close(ctx context.Context) error {
	b.release()
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
