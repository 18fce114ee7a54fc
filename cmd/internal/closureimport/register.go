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
	names, err := readNames(store)
	if err != nil {
		return fmt.Errorf("read store: %w", err)
	}
	present := make(map[string]bool, len(names))
	for _, name := range names {
		present[name] = true
	}
	for _, path := range paths {
		if !present[path[len(storedb.StoreDir)+1:]] {
			return &storedb.InputError{File: file, Reason: fmt.Sprintf("%s is not in the store %s", path, store),
				Hint: "without --register-only, it would be copied there"}
		}
	}
	return nil
}

// readNames returns the names in a directory, unsorted, and none if there is no
// such directory.
func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}
