package closureimport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/storedb"
)

// RegisterImage registers a closure, the files of which are in a store that has
// no database yet, by giving it that of an image: nothing is parsed, nothing is
// written row by row. It returns false, and has done nothing, if the store has a
// database already.
func RegisterImage(ctx context.Context, o storedb.StateOptions, asJSON bool, out *cli.IO) (done bool, err error) {
	start := time.Now()
	if err := checkPresent(o); err != nil {
		return false, err
	}
	state, err := storedb.CreateState(ctx, o)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	summary := storedb.Summary{Paths: state.Paths, Placed: state.Paths, Total: time.Since(start)}
	if asJSON {
		return true, out.JSON(summary)
	}
	_, err = fmt.Fprintf(out.Stdout, "registered %d of %d paths from the database image in %v\n", summary.Placed, summary.Paths, summary.Total.Round(time.Millisecond))
	return true, err
}

// checkPresent makes sure that all paths of the closure are in the store.
func checkPresent(o storedb.StateOptions) error {
	file := filepath.Join(o.ClosureInfo, storedb.StorePathsFile)
	paths, err := storedb.ReadStorePaths(file)
	if err != nil {
		return err
	}
	store := filepath.Join(o.Root, storedb.StoreDir)
	entries, err := os.ReadDir(store)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read store: %w", err)
	}
	present := make(map[string]bool, len(entries))
	for _, entry := range entries {
		present[entry.Name()] = true
	}
	for _, path := range paths {
		if !present[filepath.Base(path)] {
			return &storedb.InputError{File: file, Reason: fmt.Sprintf("%s is not in the store %s", path, store),
				Hint: "without --register-only, it would be copied there"}
		}
	}
	return nil
}
