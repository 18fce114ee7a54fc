package storedb

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"time"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"
)

// schemaVersion is the only schema that is read or written.
const schemaVersion = "10"

// databaseName is the file in a store's database directory.
const databaseName = "db.sqlite"

// tables is the schema of a store database, without the two indices that are
// cheaper to make when the rows are there.
//
// SchemaMigrations names the steps between schema versions that a database has
// taken. Nix has kept it since 2.25, and since 2.35 takes an exclusive lock on
// any store whose database does not have the one below, to drop an index on
// Refs(referrer) that the primary key makes superfluous. Made without that
// index and with the row, a database is current for all of them.
const tables = `
create table if not exists ValidPaths (
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
create table if not exists Refs (
	referrer  integer not null,
	reference integer not null,
	primary key (referrer, reference),
	foreign key (referrer) references ValidPaths(id) on delete cascade,
	foreign key (reference) references ValidPaths(id) on delete restrict
);
create trigger if not exists DeleteSelfRefs before delete on ValidPaths begin
	delete from Refs where referrer = old.id and reference = old.id;
end;
create table if not exists DerivationOutputs (
	drv  integer not null,
	id   text not null,
	path text not null,
	primary key (drv, id),
	foreign key (drv) references ValidPaths(id) on delete cascade
);
create table if not exists SchemaMigrations (migration text primary key not null);
insert or ignore into SchemaMigrations values ('20260309-drop-redundant-indexreferrer');`

const (
	referenceIndex = "create index if not exists IndexReference on Refs(reference);\n"
	outputsIndex   = "create index if not exists IndexDerivationOutputs on DerivationOutputs(path);\n"
	indices        = referenceIndex + outputsIndex
)

// busyTimeout is how long SQLite itself waits for a lock, in milliseconds;
// between two such waits contexts are looked at.
const busyTimeout = "&_busy_timeout=100"

// cacheSize lets SQLite keep 16 MiB of a database in memory instead of 2: the
// indices of a large store, and the entries of one that is being made.
const cacheSize = "&_cache_size=-16384"

// database is a connection to a store database, for one goroutine at a time. It
// is the driver's own: database/sql looks at each value of each row, which
// takes longer than SQLite does to insert it.
type database struct {
	*sqlite3.SQLiteConn
	file string
}

// createDatabase makes a database in which nothing is valid. It keeps no
// journal: until the [draft] is complete the file is worth nothing to anybody.
func createDatabase(ctx context.Context, file string) (*database, error) {
	db, err := connect(file, "_journal_mode=OFF&_synchronous=OFF&_foreign_keys=0"+cacheSize)
	if err != nil {
		return nil, err
	}
	if err := db.exec(ctx, tables); err != nil {
		return nil, errors.Join(db.failed("create", err), db.Close())
	}
	return db, nil
}

// openDatabase opens the database of a store that Nix uses too, with Nix's
// settings. Foreign keys are checked before rows are written, which costs less.
func openDatabase(ctx context.Context, file string) (*database, error) {
	db, err := attach(ctx, file, "mode=rw&_synchronous=NORMAL&_foreign_keys=0"+cacheSize+busyTimeout)
	if err != nil {
		return nil, err
	}
	if err = db.keepLog(); err == nil {
		err = db.checkSchema(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// attach connects to a database that others use too. The first who opens a
// write-ahead log, and the last who closes it, exclude all others for a moment;
// once something has been read, this connection is among those who use it.
func attach(ctx context.Context, file, options string) (db *database, err error) {
	err = patiently(ctx, file, func() error {
		if db, err = connect(file, options); err != nil {
			return err
		}
		if err := db.exec(ctx, "select 1 from sqlite_master"); err != nil {
			return errors.Join(db.failed("read", err), db.Close())
		}
		return nil
	})
	return db, err
}

func connect(file, options string) (*database, error) {
	name := url.URL{Path: file}
	conn, err := (&sqlite3.SQLiteDriver{}).Open("file:" + name.EscapedPath() + "?" + options)
	if err != nil {
		return nil, (&database{file: file}).failed("open", err)
	}
	return &database{conn.(*sqlite3.SQLiteConn), file}, nil
}

func (db *database) exec(ctx context.Context, statements string, args ...driver.Value) error {
	_, err := db.ExecContext(ctx, statements, ordinals(args))
	return err
}

// query calls row for each row that the statement has; the values are its own
// until it returns.
func (db *database) query(ctx context.Context, statement string, args []driver.Value, row func([]driver.Value) error) error {
	rows, err := db.QueryContext(ctx, statement, ordinals(args))
	if err != nil {
		return err
	}
	values := make([]driver.Value, len(rows.Columns()))
	for {
		err := rows.Next(values)
		if err == nil {
			err = row(values)
		}
		if errors.Is(err, io.EOF) {
			return rows.Close()
		}
		if err != nil {
			return errors.Join(err, rows.Close())
		}
	}
}

func ordinals(args []driver.Value) []driver.NamedValue {
	named := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		named[i] = driver.NamedValue{Ordinal: i + 1, Value: arg}
	}
	return named
}

// transaction is one on db, to be ended with Commit or Rollback.
type transaction struct{ *database }

// begin starts a transaction that holds the write lock. While another process
// holds it, begin waits until ctx ends.
func (db *database) begin(ctx context.Context) (*transaction, error) {
	if err := db.patiently(ctx, "begin immediate"); err != nil {
		return nil, err
	}
	return &transaction{db}, nil
}

// Commit makes what has been written visible. Readers of a database that has no
// write-ahead log can hold it up.
func (tx *transaction) Commit(ctx context.Context) error { return tx.patiently(ctx, "commit") }

// Rollback undoes the transaction, which may have come undone already.
func (tx *transaction) Rollback() { _ = tx.exec(context.Background(), "rollback") }

// patiently executes a statement that other users of the database can hold up,
// until they no longer do or ctx ends.
func (db *database) patiently(ctx context.Context, statement string) error {
	return patiently(ctx, db.file, func() error {
		if err := db.exec(ctx, statement); err != nil {
			return db.failed(statement+" on", err)
		}
		return nil
	})
}

// patiently calls f until nobody keeps the database in file from it.
func patiently(ctx context.Context, file string, f func() error) error {
	for {
		err := f()
		if e, ok := errors.AsType[sqlite3.Error](err); !ok || e.Code != sqlite3.ErrBusy && e.Code != sqlite3.ErrProtocol {
			return err
		}
		select {
		case <-ctx.Done():
			return &InputError{File: file, Reason: "locked by another process", Err: ctx.Err(),
				Hint: "a Nix process, or another import, is writing to the store: try again when it has ended"}
		case <-time.After(lastLockPoll): // SQLite itself does not always wait
		}
	}
}

// failed describes what SQLite says when op fails; it is an *InputError if the
// file is at fault.
func (db *database) failed(op string, err error) error {
	if _, ok := errors.AsType[*InputError](err); ok {
		return err
	}
	e, ok := errors.AsType[sqlite3.Error](err)
	switch {
	case ok && e.Code == sqlite3.ErrNotADB:
		return &InputError{File: db.file, Reason: "not an SQLite database", Err: err}
	case ok && e.Code == sqlite3.ErrError:
		// Our statements are right: it is a table or a column that is not there.
		return &InputError{File: db.file, Reason: "not the database of a Nix store: " + err.Error(), Err: err}
	case ok && e.Code == sqlite3.ErrFull:
		err = unix.ENOSPC // of two things that SQLite says it may be
	case ok && e.Code == sqlite3.ErrCantOpen && noSpace(filepath.Dir(db.file)):
		err = unix.ENOSPC // SQLite tells what its last system call was told
	case ok && e.Code == sqlite3.ErrCorrupt:
		return &InputError{File: db.file, Reason: "corrupt: " + err.Error(), Err: err,
			Hint: "see what 'sqlite3 " + db.file + " \"pragma integrity_check\"' says"}
	}
	return fmt.Errorf("%s store database %s: %w", op, db.file, err)
}

// noSpace reports whether no file can be made in a directory for want of space.
func noSpace(dir string) bool {
	var s unix.Statfs_t
	return unix.Statfs(dir, &s) == nil && (s.Bavail == 0 || s.Files > 0 && s.Ffree == 0)
}

// validPaths returns the row ids of those of the infos, and of what they refer
// to, that are valid.
func validPaths(ctx context.Context, db *database, infos []PathInfo) (map[string]int64, error) {
	valid := map[string]int64{}
	asked := make(map[string]bool, len(infos))
	var ask []driver.Value
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
		err := db.query(ctx, "select id, path from ValidPaths where path in "+tuple(n), ask[:n], func(row []driver.Value) error {
			id, ok1 := row[0].(int64)
			path, ok2 := row[1].(string)
			if !ok1 || !ok2 {
				return errors.New("ValidPaths has a row of wrong types")
			}
			valid[path] = id
			return nil
		})
		if err != nil {
			return nil, db.failed("look up paths in", err)
		}
		ask = ask[n:]
	}
	return valid, nil
}
