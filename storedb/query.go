package storedb

import (
	"context"
	"database/sql/driver"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"
)

// QueryClosure reads what the database of the store below root has of the paths
// and of all that they refer to, directly or not. The store may be in use. What
// is wrong with the paths or the database is returned as an *InputError.
func QueryClosure(ctx context.Context, root string, paths []string) (*Closure, error) {
	for _, path := range paths {
		if err := CheckStorePath(path); err != nil {
			return nil, &InputError{File: path, Reason: err.Error(), Hint: "give paths as they are in a store: " + StoreDir + "/HASH-NAME", Err: err}
		}
	}
	c := &Closure{Name: root}
	err := readStoreDatabase(ctx, root, func(db *database) error {
		ids, err := rootIDs(ctx, db, root, paths)
		if err != nil {
			return err
		}
		references, err := closeReferences(ctx, db, ids)
		if err != nil {
			return err
		}
		c.Paths, err = readPaths(ctx, db, references)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// rootIDs returns the row ids of paths, all of which must be valid.
func rootIDs(ctx context.Context, db *database, root string, paths []string) ([]int64, error) {
	infos := make([]PathInfo, len(paths))
	for i, path := range paths {
		infos[i].Path = path
	}
	valid, err := validPaths(ctx, db, infos)
	if err != nil {
		return nil, err
	}
	ids := make([]int64, len(paths))
	for i, path := range paths {
		id, ok := valid[path]
		if !ok {
			return nil, &InputError{File: db.file, Reason: fmt.Sprintf("%s is not valid in the store below %s", path, root),
				Hint: "realise it there ('nix-store --realise'), or name the store that has it"}
		}
		ids[i] = id
	}
	return ids, nil
}

// closeReferences follows references from the rows ids, level by level. It
// returns the references of each row that it reaches.
func closeReferences(ctx context.Context, db *database, ids []int64) (map[int64][]int64, error) {
	references := make(map[int64][]int64, len(ids))
	for level := ids; len(level) > 0; {
		list := make([]int64, 0, len(level))
		for _, id := range level {
			if _, known := references[id]; !known {
				references[id] = nil
				list = append(list, id)
			}
		}
		level = nil
		err := db.query(ctx, "select referrer, reference from Refs where referrer in (select value from json_each(?))", idList(list), func(row []driver.Value) error {
			referrer, reference, err := integers(row)
			if err != nil {
				return db.garbage("Refs", err)
			}
			references[referrer] = append(references[referrer], reference)
			if _, known := references[reference]; !known {
				level = append(level, reference)
			}
			return nil
		})
		if err != nil {
			return nil, db.failed("read references from", err)
		}
	}
	return references, nil
}

// idList is the argument of a statement that takes a list of row ids.
func idList(ids []int64) []driver.Value {
	list, _ := json.Marshal(ids) // integers always have a form
	return []driver.Value{string(list)}
}

// pathColumns are those of ValidPaths that scanPath takes.
const pathColumns = "id, path, hash, deriver, narSize, ultimate, sigs, ca"

// readPaths reads the rows that references is about, and returns them in the
// order of their paths.
func readPaths(ctx context.Context, db *database, references map[int64][]int64) ([]PathInfo, error) {
	ids := make([]int64, 0, len(references))
	for id := range references {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	infos := make([]PathInfo, 0, len(ids))
	paths := make(map[int64]string, len(ids))
	rows := make([]int64, 0, len(ids)) // ids of infos
	err := db.query(ctx, "select "+pathColumns+" from ValidPaths where id in (select value from json_each(?))", idList(ids), func(row []driver.Value) error {
		id, info, err := scanPath(row)
		if err != nil {
			return db.garbage("ValidPaths", err)
		}
		infos, rows, paths[id] = append(infos, info), append(rows, id), info.Path
		return nil
	})
	if err != nil {
		return nil, db.failed("read paths from", err)
	}
	for i, id := range rows {
		to := references[id]
		infos[i].References = make([]string, len(to))
		for n, reference := range to {
			path, ok := paths[reference]
			if !ok {
				return nil, db.garbage("Refs", fmt.Errorf("%s refers to row %d of ValidPaths, which does not exist", infos[i].Path, reference))
			}
			infos[i].References[n] = path
		}
		slices.Sort(infos[i].References)
	}
	slices.SortFunc(infos, comparePaths)
	return infos, nil
}

// garbage says that a row of table has what no Nix writes.
func (db *database) garbage(table string, err error) error {
	return &InputError{File: db.file, Reason: fmt.Sprintf("table %s: %v", table, err), Err: err,
		Hint: "this is not what Nix writes: restore the database from a backup, or use another store"}
}

// scanPath checks all that it returns of a row with pathColumns.
func scanPath(row []driver.Value) (id int64, info PathInfo, err error) {
	var sigs, hash string
	var ultimate int64
	if id, err = integer(row[0]); err != nil {
		return id, info, fmt.Errorf("id %w", err)
	}
	columns := []struct {
		name string
		into any
	}{{"path", &info.Path}, {"hash", &hash}, {"deriver", &info.Deriver}, {"narSize", &info.NarSize}, {"ultimate", &ultimate}, {"sigs", &sigs}, {"ca", &info.CA}}
	for i, column := range columns {
		if err := assign(column.into, row[i+1]); err != nil {
			return id, info, fmt.Errorf("row %d: %s: %w", id, column.name, err)
		}
	}
	if err := CheckStorePath(info.Path); err != nil {
		return id, info, fmt.Errorf("row %d: path %w", id, err)
	}
	// Nix, too, insists on the algorithm here.
	if info.NarHash, err = parseHash([]byte(hash)); err == nil && !strings.HasPrefix(hash, "sha256") {
		err = fmt.Errorf("%q has no algorithm", hash)
	}
	if err != nil {
		return id, info, fmt.Errorf("%s: hash %w", info.Path, err)
	}
	info.Ultimate, info.Sigs = ultimate == 1, strings.Fields(sigs)
	if err := checkInfo(info); err != nil {
		return id, info, fmt.Errorf("%s: %w", info.Path, err)
	}
	return id, info, nil
}

// assign stores a value in a *string or *int64, as its zero value if it is null.
func assign(into any, v driver.Value) error {
	ok := v == nil
	switch into := into.(type) {
	case *string:
		if !ok {
			*into, ok = v.(string)
		}
	case *int64:
		if !ok {
			*into, ok = v.(int64)
		}
	}
	if !ok {
		return fmt.Errorf("value of type %T", v)
	}
	return nil
}

// checkInfo checks what is not checked already of a row.
func checkInfo(info PathInfo) error {
	if info.NarSize < 0 {
		return fmt.Errorf("narSize %d", info.NarSize)
	}
	if info.Deriver != "" {
		if err := CheckStorePath(info.Deriver); err != nil {
			return fmt.Errorf("deriver %w", err)
		}
		if !isDerivation(info.Deriver) {
			return fmt.Errorf("deriver %q does not end in .drv", info.Deriver)
		}
	}
	for _, sig := range info.Sigs {
		name, signature, ok := strings.Cut(sig, ":")
		if _, err := base64.StdEncoding.DecodeString(signature); !ok || err != nil || name == "" || signature == "" {
			return fmt.Errorf("signature %q does not have the form NAME:BASE64", sig)
		}
	}
	if info.CA != "" {
		return checkContentAddress(info.CA)
	}
	return nil
}

// checkContentAddress accepts text:HASH and fixed:HASH, the latter also with the
// name of a method before the hash.
func checkContentAddress(ca string) error {
	kind, rest, _ := strings.Cut(ca, ":")
	if kind != "text" && kind != "fixed" {
		return fmt.Errorf("content address %q is of an unknown kind", ca)
	}
	if kind == "fixed" {
		for _, method := range []string{"r:", "git:"} {
			rest = strings.TrimPrefix(rest, method)
		}
	}
	algorithm, digest, _ := strings.Cut(rest, ":")
	known := slices.Contains([]string{"md5", "sha1", "sha256", "sha512", "blake3"}, algorithm)
	isDigit := func(c rune) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
	if !known || digest == "" || strings.ContainsFunc(digest, func(c rune) bool { return !isDigit(c) }) {
		return fmt.Errorf("content address %q does not end in a hash", ca)
	}
	return nil
}

// readStoreDatabase calls read with the database of the store below root, in
// which nothing changes meanwhile.
func readStoreDatabase(ctx context.Context, root string, read func(*database) error) error {
	exists, err := hasDatabase(root)
	if err != nil {
		return err
	}
	if !exists {
		return &InputError{File: filepath.Join(root, databaseDir), Reason: "there is no store database", Err: fs.ErrNotExist,
			Hint: "give the root of a store: the directory that has nix/store and nix/var/nix/db, / for the system's"}
	}
	return readDatabase(ctx, filepath.Join(root, databaseDir, databaseName), read)
}

// readDatabase opens the database in file, which may be in use, and calls read
// within a transaction.
//
// SQLite shares the state of a write-ahead log through files beside the
// database. A user who may write there opens the database as Nix does; other
// users need those files to exist, which Nix sees to since 2.22. Where they do
// not, nobody has the database open, and it is read as a file that does not
// change. Should that turn out wrong, it is read again.
func readDatabase(ctx context.Context, file string, read func(*database) error) error {
	log, _ := os.Stat(file + "-wal")
	options := "mode=ro"
	if unix.Access(file, unix.W_OK) == nil && unix.Access(filepath.Dir(file), unix.W_OK) == nil {
		options = "mode=rw"
	} else if log == nil || log.Size() == 0 && !exists(file+"-shm") {
		return readUnused(ctx, file, read)
	}
	db, err := attach(ctx, file, options+busyTimeout)
	if err != nil {
		return err
	}
	if log != nil && options == "mode=rw" {
		err = db.keepLog()
	}
	if err == nil {
		err = db.snapshot(ctx, read)
	}
	return errors.Join(err, db.Close())
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// readUnused reads a database that is in a state in which nobody uses it.
func readUnused(ctx context.Context, file string, read func(*database) error) error {
	before, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("open store database: %w", err)
	}
	db, err := connect(file, "mode=ro&immutable=1")
	if err != nil {
		return err
	}
	err = db.snapshot(ctx, read)
	err = errors.Join(err, db.Close())
	after, statErr := os.Stat(file)
	if statErr != nil {
		return fmt.Errorf("open store database: %w", statErr)
	}
	log, _ := os.Stat(file + "-wal")
	if after.ModTime() != before.ModTime() || after.Size() != before.Size() || log != nil && log.Size() > 0 {
		return readDatabase(ctx, file, read)
	}
	return err
}

// keepLog leaves the write-ahead log in place when the database is closed, as
// Nix does, so that users who may not write to the store can open it.
func (db *database) keepLog() error {
	if err := db.SetFileControlInt("main", sqlite3.SQLITE_FCNTL_PERSIST_WAL, 1); err != nil {
		return db.failed("open", err)
	}
	return nil
}

// snapshot calls read within a transaction, after a look at the schema.
func (db *database) snapshot(ctx context.Context, read func(*database) error) error {
	if err := db.exec(ctx, "begin"); err != nil {
		return db.failed("read", err)
	}
	// The first statement locks the database.
	if err := db.patiently(ctx, "select 1 from sqlite_master"); err != nil {
		return err
	}
	if err := db.checkSchema(ctx); err != nil {
		return err
	}
	if err := read(db); err != nil {
		return err
	}
	return db.patiently(ctx, "commit")
}

// checkSchema makes sure that there is all that is read and written.
func (db *database) checkSchema(ctx context.Context) error {
	missing := map[string]bool{}
	for table, columns := range map[string]string{
		"ValidPaths":        "id path hash registrationTime deriver narSize ultimate sigs ca",
		"Refs":              "referrer reference",
		"DerivationOutputs": "drv id path",
	} {
		for column := range strings.FieldsSeq(columns) {
			missing[table+"."+column] = true
		}
	}
	err := db.query(ctx, "select t.name || '.' || c.name from sqlite_master t, pragma_table_info(t.name) c where t.type = 'table'", nil, func(row []driver.Value) error {
		if name, ok := row[0].(string); ok {
			delete(missing, name)
		}
		return nil
	})
	if err != nil {
		return db.failed("read schema of", err)
	}
	for name := range missing {
		return &InputError{File: db.file, Reason: "not the database of a Nix store: there is no " + name,
			Hint: "only schema version " + schemaVersion + " is known, which Nix has used since 2.0"}
	}
	return nil
}

// integers are those of a row that has two.
func integers(row []driver.Value) (a, b int64, err error) {
	if a, err = integer(row[0]); err == nil {
		b, err = integer(row[1])
	}
	return a, b, err
}
