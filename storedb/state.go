package storedb

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"vm-prebuild/nar/tree"
)

// StateOptions says what state to make, and where.
type StateOptions struct {
	Root        string   // root of the store; made if missing
	ClosureInfo string   // directory built by closureInfo: what is valid in the store
	Closure     *Closure // the same, if it was read from elsewhere or already
	From        string   // root of the store that has the derivations of the closure; empty means /
	DBImage     string   // directory made by [WriteImage] of ClosureInfo; may be empty
	Present     bool     // all paths of ClosureInfo must be in the store; for use with DBImage
	Jobs        int      // derivations to read at once; 0 or less means one for each CPU
}

// State is what CreateState has made.
type State struct {
	Paths     int  `json:"paths"`     // that are valid
	FromImage bool `json:"fromImage"` // the database is a copy of an image
}

// CreateState makes the state of a new store, below nix/var, in which a closure
// is valid, and no files: they are there, or will be before Nix looks. It has all
// that any Nix from 2.8 on would make or change when it opens the store, but for
// the file db/reserved, 8 MiB that Nix sets aside, if it can, for a garbage
// collection on a full disk.
//
// With a database image, not even the registration is parsed. What the caller
// can put right is reported as *InputError; after an error there is nothing. If
// there is a store already, the error is [fs.ErrExist], too.
func CreateState(ctx context.Context, o StateOptions) (state State, err error) {
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return State{}, fmt.Errorf("create store: %w", err)
	}
	d, err := openDestination(ctx, root, patience{report: func(string) {}})
	if err != nil {
		return State{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.rollback(false))
		}
		err = errors.Join(err, d.close())
	}()
	taken := &InputError{File: filepath.Join(root, databaseDir), Reason: "there is a store already",
		Hint: "name a directory for a new one, or import into this one", Err: fs.ErrExist}
	if !d.fresh {
		return State{}, taken
	}
	file, err := d.newDatabase()
	if err != nil {
		return State{}, err
	}
	if state, err = o.write(ctx, file); err != nil {
		return State{}, err
	}
	if err := d.lockDatabase(ctx); err != nil {
		return State{}, err
	}
	if !d.fresh {
		return State{}, taken
	}
	if err := d.publishDatabase(); err != nil {
		return State{}, err
	}
	return state, nil
}

// write makes the database.
func (o *StateOptions) write(ctx context.Context, file string) (State, error) {
	if o.DBImage != "" {
		paths := 0
		err := copyImage(ctx, o.DBImage, file, func() (of digest, n int, err error) {
			of, paths, err = o.identity()
			return of, paths, err
		})
		return State{Paths: paths, FromImage: true}, err
	}
	c := o.Closure
	if c == nil {
		var err error
		if c, err = ReadClosureInfo(o.ClosureInfo); err != nil {
			return State{}, err
		}
	}
	g, err := newGraph(c)
	if err != nil {
		return State{}, err
	}
	if err := g.checkOthers(nil); err != nil {
		return State{}, err
	}
	outputs, err := outputsFrom(ctx, g, o.From, o.Jobs)
	if err != nil {
		return State{}, err
	}
	return State{Paths: len(g.paths)}, writeDatabase(ctx, file, g, outputs, imageTime)
}

// identity is what an image of the closure is known by: the digest of the
// registration, and how many paths there are.
func (o *StateOptions) identity() (of digest, paths int, err error) {
	if o.Closure != nil {
		return o.Closure.digest, len(o.Closure.Paths), nil
	}
	var group errgroup.Group
	group.Go(func() error {
		return readInput(filepath.Join(o.ClosureInfo, registrationFile), func(r io.Reader) (err error) {
			of, err = digestOf(r)
			return err
		})
	})
	paths, countErr := o.countPaths()
	if err := group.Wait(); err != nil {
		return of, 0, err
	}
	return of, paths, countErr
}

// countPaths returns how many paths the closure has, which must be in the store
// if that is wanted.
func (o *StateOptions) countPaths() (paths int, err error) {
	// 64 bits of a name are as good as the name, with a seed that nobody knows,
	// and a set of them takes half as long as one of strings.
	seed := maphash.MakeSeed()
	present := map[uint64]struct{}{}
	if o.Present {
		store, err := os.Open(filepath.Join(o.Root, storeDir))
		if err == nil {
			err = errors.Join(tree.EachName(int(store.Fd()), func(name string) { present[maphash.String(seed, name)] = struct{}{} }), store.Close())
		}
		if err != nil {
			return 0, fmt.Errorf("read store: %w", err)
		}
	}
	file := filepath.Join(o.ClosureInfo, StorePathsFile)
	err = readInput(file, func(r io.Reader) error {
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			paths++
			if !o.Present {
				continue
			}
			base, _ := bytes.CutPrefix(lines.Bytes(), []byte(StoreDir+"/"))
			if _, ok := present[maphash.Bytes(seed, base)]; !ok {
				return &InputError{File: file, Line: paths, Reason: fmt.Sprintf("%s is not in the store %s", lines.Bytes(), filepath.Join(o.Root, storeDir)),
					Hint: "without --register-only, it would be copied there"}
			}
		}
		if err := lines.Err(); err != nil {
			return fmt.Errorf("read closureInfo: %w", err)
		}
		return nil
	})
	return paths, err
}
