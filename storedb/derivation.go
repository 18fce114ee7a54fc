package storedb

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/nix-community/go-nix/pkg/derivation"
	"golang.org/x/sync/errgroup"
)

// maxDerivation bounds how much of a .drv file is read, in bytes.
const maxDerivation = 64 << 20

// output is one of a derivation, as DerivationOutputs has it.
type output struct{ name, path string }

// outputsFrom reads the derivations of g from the store below root.
func outputsFrom(ctx context.Context, g *graph, root string, jobs int) (map[string][]output, error) {
	var derivations []PathInfo
	var names []string
	for i := range g.paths {
		if isDerivation(g.paths[i].Path) {
			derivations = append(derivations, g.paths[i])
			names = append(names, baseName(g.paths[i].Path))
		}
	}
	if len(derivations) == 0 {
		return nil, nil
	}
	dir, err := os.Open(filepath.Join(cmp.Or(root, "/"), storeDir))
	if err != nil {
		return nil, fmt.Errorf("read derivations: %w", err)
	}
	defer dir.Close()
	if jobs <= 0 {
		jobs = runtime.GOMAXPROCS(0)
	}
	return readOutputs(ctx, int(dir.Fd()), derivations, names, jobs)
}

// readOutputs reads the derivations among infos from the open directory store,
// where info i has the name names[i]. Without rows for their outputs, Nix says
// that the derivations have none.
func readOutputs(ctx context.Context, store int, infos []PathInfo, names []string, jobs int) (map[string][]output, error) {
	found := make([][]output, len(infos))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(jobs)
	for i, info := range infos {
		if !isDerivation(info.Path) {
			continue
		}
		group.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return err
			}
			found[i], err = derivationOutputs(store, names[i])
			if err != nil {
				return fmt.Errorf("read outputs of derivation %s: %w", info.Path, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	outputs := map[string][]output{}
	for i, info := range infos {
		if len(found[i]) > 0 {
			outputs[info.Path] = found[i]
		}
	}
	return outputs, nil
}

// derivationOutputs parses the derivation name in dir. An output whose path is
// not known before it is built has no row.
func derivationOutputs(dir int, name string) ([]output, error) {
	fd, err := openAt(dir, name, openFlags, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	drv, err := derivation.ReadDerivation(io.LimitReader(f, maxDerivation))
	if err != nil {
		return nil, err
	}
	var outputs []output
	for name, o := range drv.Outputs {
		if o.Path == "" {
			continue
		}
		if err := CheckStorePath(o.Path); err != nil {
			return nil, fmt.Errorf("output %q: %w", name, err)
		}
		outputs = append(outputs, output{name, o.Path})
	}
	slices.SortFunc(outputs, func(a, b output) int { return strings.Compare(a.name, b.name) })
	return outputs, nil
}
