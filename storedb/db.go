package storedb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"

	"github.com/mattn/go-sqlite3"
)

// schemaVersion is the only schema that is read or written.
const schemaVersion = "10"

// tables is the schema of a store database, without the two indices that are
// cheaper to make when the rows are there.
//
// SchemaMigrations names the steps between schema versions that a database has
// taken. Nix has kept it since 2.25, and since 2.35 takes an exclusive lock on
// any store whose database does not have the one below, to drop an index on
// Refs(referrer) that the primary key makes superfluous. Made without that
// index and with the row, a database is current for all of them.
const tables = `
create table ValidPaths (
	id               integer primary key autoincrement not null,
	path             text unique not null,
	hash             text not null,
	registrationTime integer not null,
	deriver          text,
	narSize          integer,
	ultimate         integer,
	sigs             text,
	ca               text
);
create table Refs (
	referrer  integer not null,
	reference integer not null,
	primary key (referrer, reference),
	foreign key (referrer) references ValidPaths(id) on delete cascade,
	foreign key (reference) references ValidPaths(id) on delete restrict
);
create trigger DeleteSelfRefs before delete on ValidPaths begin
	delete from Refs where referrer = old.id and reference = old.id;
end;
create table DerivationOutputs (
	drv  integer not null,
	id   text not null,
	path text not null,
	primary key (drv, id),
	foreign key (drv) references ValidPaths(id) on delete cascade
);
create table SchemaMigrations (migration text primary key not null);
insert into SchemaMigrations values ('20260309-drop-redundant-indexreferrer');`

const indices = `
create index IndexReference on Refs(reference);
create index IndexDerivationOutputs on DerivationOutputs(path);`

// database is an open store database with one connection.
type database struct {
	*sql.DB
	file  string
	fresh bool // made by this import, and not yet where Nix looks for it
}

// createDatabase makes a database in which nothing is valid. It keeps no
// journal: until seal has been called the file is worth nothing to anybody.
func createDatabase(ctx context.Context, file string) (*database, error) {
	db, err := connect(file, "_journal_mode=OFF&_synchronous=OFF&_foreign_keys=0&_cache_size=-200000")
	if err != nil {
		return nil, err
	}
	db.fresh = true
	if _, err := db.ExecContext(ctx, tables); err != nil {
		return nil, errors.Join(fmt.Errorf("create store database %s: %w", file, err), db.Close())
	}
	return db, nil
}

// openDatabase opens the database of a store that Nix uses too, with Nix's
// settings. Foreign keys are checked before rows are written, which costs less.
func openDatabase(ctx context.Context, file string) (*database, error) {
	db, err := connect(file, "mode=rw&_synchronous=NORMAL&_foreign_keys=0&_cache_size=-200000&_busy_timeout=100&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err == nil {
		// Nix leaves the write-ahead log in place, so that users who may not
		// write to the store can open its database.
		err = errors.Join(conn.Raw(func(c any) error {
			return c.(*sqlite3.SQLiteConn).SetFileControlInt("main", sqlite3.SQLITE_FCNTL_PERSIST_WAL, 1)
		}), conn.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open store database %s: %w", file, err), db.Close())
	}
	return db, nil
}

// openDatabaseReadOnly opens a database to look things up.
func openDatabaseReadOnly(file string) (*database, error) {
	return connect(file, "mode=ro")
}

func connect(file, options string) (*database, error) {
	name := url.URL{Path: file}
	db, err := sql.Open("sqlite3", "file:"+name.EscapedPath()+"?"+options)
	if err != nil {
		return nil, fmt.Errorf("open store database %s: %w", file, err)
	}
	db.SetMaxOpenConns(1)
	return &database{DB: db, file: file}, nil
}

// seal completes a fresh database and closes it.
func (db *database) seal(ctx context.Context) error {
	_, err := db.ExecContext(ctx, indices+"pragma journal_mode = wal;")
	if err = errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("complete store database %s: %w", db.file, err)
	}
	return nil
}

// begin starts a transaction that holds the write lock. While another process
// holds it, begin waits until ctx ends.
func (db *database) begin(ctx context.Context) (*sql.Tx, error) {
	for {
		tx, err := db.BeginTx(ctx, nil)
		if err == nil {
			return tx, nil
		}
		if e, ok := errors.AsType[sqlite3.Error](err); !ok || e.Code != sqlite3.ErrBusy {
			return nil, fmt.Errorf("lock store database %s: %w", db.file, err)
		}
	}
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// validPaths returns the row ids of those of the infos, and of what they refer
// to, that are valid.
func validPaths(ctx context.Context, q querier, infos []PathInfo) (map[string]int64, error) {
	valid := map[string]int64{}
	asked := map[string]bool{}
	var ask []any
	add := func(path string) {
		if !asked[path] {
			asked[path] = true
			ask = append(ask, path)
		}
	}
	for _, info := range infos {
		add(info.Path)
		for _, reference := range info.References {
			add(reference)
		}
	}
	for len(ask) > 0 {
		n := min(len(ask), 1000)
		if err := selectIDs(ctx, q, ask[:n], valid); err != nil {
			return nil, fmt.Errorf("look up valid paths: %w", err)
		}
		ask = ask[n:]
	}
	return valid, nil
}

func selectIDs(ctx context.Context, q querier, paths []any, into map[string]int64) (err error) {
	rows, err := q.QueryContext(ctx, "select id, path from ValidPaths where path in "+tuple(len(paths)), paths...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id int64
		var path string
		if err := rows.Scan(&id, &path); err != nil {
			return err
		}
		into[path] = id
	}
	return rows.Err()
}
