package storedb

import (
	"bytes"
	"context"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"vm-prebuild/nar/tree"
)

// The files of a database image. The digests are in hexadecimal, followed by a
// newline.
//
// That of the database is there to notice damage: whoever can change the
// database can change its digest, too. A checksum does, CRC-32C. What the image
// is of has to be known for certain.
const (
	imageDatabase      = databaseName
	imageDatabaseSum   = databaseName + ".crc32c"
	imageClosureDigest = registrationFile + ".blake3" // of the registration that it was made from
)

// imageTime is the time of registration of all paths in an image, which must not
// depend on when it is made: that of all files in a store.
const imageTime = tree.Mtime

// ImageOptions says what image to write, and where.
type ImageOptions struct {
	Closure *Closure // read from a registration
	From    string   // root of the store that has the derivations of the closure; empty means /
	Out     string   // directory to write to; made if missing
	Jobs    int      // derivations to read at once; 0 or less means one for each CPU
}

// WriteImage makes the database of a store in which the closure and nothing else
// is valid, for many stores to be made from: see [Options] and [StateOptions].
// The same closure gives the same bytes.
//
// The directory Out then has the database, db.sqlite, its checksum,
// db.sqlite.crc32c, and the digest of the registration, registration.blake3, by
// which it is known what the image is of.
func WriteImage(ctx context.Context, o ImageOptions) error {
	if o.Closure.digest == (digest{}) {
		return errors.New("write database image: the closure was not read from a registration")
	}
	g, err := newGraph(o.Closure)
	if err != nil {
		return err
	}
	outputs, err := outputsFrom(ctx, g, o.From, o.Jobs)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return fmt.Errorf("write database image: %w", err)
	}
	temp, err := os.MkdirTemp(o.Out, ".tmp-")
	if err != nil {
		return fmt.Errorf("write database image: %w", err)
	}
	err = writeImage(ctx, temp, o, g, outputs)
	if err := errors.Join(err, os.RemoveAll(temp)); err != nil {
		return fmt.Errorf("write database image: %w", err)
	}
	return nil
}

// writeImage makes the files in temp and then moves them, last the one that says
// what the image is of.
func writeImage(ctx context.Context, temp string, o ImageOptions, g *graph, outputs map[string][]output) error {
	file := filepath.Join(temp, imageDatabase)
	if err := writeDatabase(ctx, file, g, outputs, imageTime); err != nil {
		return err
	}
	sum, err := checksumOfFile(file)
	if err != nil {
		return err
	}
	names := []string{imageDatabase, imageDatabaseSum, imageClosureDigest}
	for i, hash := range [][]byte{sum[:], o.Closure.digest[:]} {
		if err := os.WriteFile(filepath.Join(temp, names[i+1]), fmt.Appendf(nil, "%x\n", hash), 0o644); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := os.Rename(filepath.Join(temp, name), filepath.Join(o.Out, name)); err != nil {
			return err
		}
	}
	return nil
}

// copyImage makes file from the image in dir, which must be that of the
// registration with the digest that wanted returns, and have so many paths.
// What is wrong with the image is returned as an *InputError; file may then be
// there.
func copyImage(ctx context.Context, dir, file string, wanted func() (of digest, paths int, err error)) error {
	var of digest
	var paths int
	var found imageRows
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		of, paths, err = wanted()
		return err
	})
	group.Go(func() (err error) {
		if err = copyChecked(groupCtx, dir, file); err == nil {
			found, err = readImage(groupCtx, filepath.Join(dir, imageDatabase), file)
		}
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if err := isImageOf(dir, of); err != nil {
		return err
	}
	if n := int64(paths); found.paths != n || found.lastID != n || found.lastReference > n {
		return &InputError{File: filepath.Join(dir, imageDatabase), Hint: imageHint,
			Reason: fmt.Sprintf("has %d paths, rows up to %d and references to rows up to %d, but the closure has %d paths", found.paths, found.lastID, found.lastReference, paths)}
	}
	return nil
}

// isImageOf makes sure that dir has the image of the registration with the
// digest.
func isImageOf(dir string, wanted digest) error {
	var of digest
	err := readDigest(filepath.Join(dir, imageClosureDigest), of[:])
	if err == nil && of != wanted {
		err = &InputError{File: dir, Reason: "is the database image of another closure",
			Hint: "make it again: 'nix-closure-import db-image' with the closureInfo that is imported"}
	}
	return err
}

// copyChecked copies the database of an image and compares its checksum: of what
// has been written, which nobody else changes. It is on the disk then, while
// others are still busy.
func copyChecked(ctx context.Context, dir, to string) error {
	var want, got checksum
	if err := readDigest(filepath.Join(dir, imageDatabaseSum), want[:]); err != nil {
		return err
	}
	from := filepath.Join(dir, imageDatabase)
	in, err := openImageFile(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("copy database image: %w", err)
	}
	defer out.Close()
	got, err = checksumOf(io.TeeReader(contextReader{ctx, in}, out))
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = syncFile(out)
	}
	if err != nil {
		return fmt.Errorf("copy database image: %w", err)
	}
	if got != want {
		return &InputError{File: from, Reason: "damaged: its checksum is not the one in " + imageDatabaseSum, Hint: imageHint}
	}
	// Where the header says what is needed to read and write: a write-ahead log.
	var version [2]byte
	if _, err := out.ReadAt(version[:], 18); err != nil || version != [2]byte{2, 2} {
		return &InputError{File: from, Reason: "not a database with a write-ahead log", Hint: imageHint, Err: err}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("copy database image: %w", err)
	}
	return nil
}

const imageHint = "make the image again with 'nix-closure-import db-image'"

// imageRows is what is in a database, as far as it can be told soon.
type imageRows struct {
	paths         int64
	lastID        int64 // of a path, now or ever
	lastReference int64 // the last path that refers to one or is referred to
}

// readImage makes sure that file, the copy of image, is a database as
// [writeDatabase] makes it: a checksum says nothing about who made it.
func readImage(ctx context.Context, image, file string) (rows imageRows, err error) {
	db, err := connect(file, "mode=ro&immutable=1")
	if err == nil {
		if err = db.checkLikeFresh(ctx); err == nil {
			rows, err = db.countRows(ctx)
		}
		err = errors.Join(err, db.Close())
	}
	if input, ok := errors.AsType[*InputError](err); ok {
		input.File, input.Hint = image, imageHint
	}
	return rows, err
}

func (db *database) checkLikeFresh(ctx context.Context) error {
	want, err := freshSchema(ctx)
	if err != nil {
		return err
	}
	got, err := db.schema(ctx)
	if err != nil {
		return db.failed("read", err)
	}
	if !slices.EqualFunc(got, want, slices.Equal[[]driver.Value]) {
		return &InputError{File: db.file, Reason: "has another schema than images made by this program"}
	}
	return nil
}

func (db *database) countRows(ctx context.Context) (rows imageRows, err error) {
	const query = `select (select count(*) from ValidPaths), (select coalesce(max(seq), 0) from sqlite_sequence),
		max((select coalesce(max(referrer), 0) from Refs), (select coalesce(max(reference), 0) from Refs))`
	err = db.query(ctx, query, nil, func(row []driver.Value) (err error) {
		for i, column := range []*int64{&rows.paths, &rows.lastID, &rows.lastReference} {
			if *column, err = integer(row[i]); err != nil {
				return &InputError{File: db.file, Reason: "not the database of a Nix store", Err: err}
			}
		}
		return nil
	})
	if err != nil {
		err = db.failed("read", err)
	}
	return rows, err
}

// freshSchema is the schema of a database that has just been made.
func freshSchema(ctx context.Context) ([][]driver.Value, error) {
	db, err := connect("", "mode=memory")
	if err != nil {
		return nil, err
	}
	var schema [][]driver.Value
	if err = db.exec(ctx, tables+indices); err == nil {
		schema, err = db.schema(ctx)
	}
	if err != nil {
		err = db.failed("create", err)
	}
	return schema, errors.Join(err, db.Close())
}

// schema returns all that SQLite and Nix go by: tables, indices, triggers, and
// steps between schema versions that have been taken.
func (db *database) schema(ctx context.Context) (rows [][]driver.Value, err error) {
	const query = "select type, name, tbl_name, sql from sqlite_master union all select 'migration', migration, null, null from SchemaMigrations order by 1, 2"
	err = db.query(ctx, query, nil, func(row []driver.Value) error {
		rows = append(rows, slices.Clone(row))
		return nil
	})
	return rows, err
}

// readDigest reads a digest of an image.
func readDigest(file string, digest []byte) error {
	f, err := openImageFile(file)
	if err != nil {
		return err
	}
	defer f.Close()
	line := make([]byte, 2*len(digest)+2)
	n, err := io.ReadFull(f, line)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read database image: %w", err)
	}
	digits, newline := bytes.CutSuffix(line[:n], []byte{'\n'})
	if _, err := hex.Decode(digest, digits[:min(len(digits), 2*len(digest))]); err != nil || !newline || len(digits) != 2*len(digest) {
		return &InputError{File: file, Reason: fmt.Sprintf("is not %d hexadecimal digits, followed by a newline", 2*len(digest)), Hint: imageHint}
	}
	return nil
}

// openImageFile opens a file that must be a regular one.
func openImageFile(file string) (*os.File, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &InputError{File: file, Reason: "no such file", Hint: "give a directory made by 'nix-closure-import db-image' of this version", Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("read database image: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &InputError{File: file, Reason: "is not a regular file", Hint: imageHint}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
