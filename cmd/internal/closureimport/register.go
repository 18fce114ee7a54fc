package closureimport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	o.Present = true
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
