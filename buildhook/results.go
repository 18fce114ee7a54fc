package buildhook

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"vm-prebuild/buildhook/protocol"
	"vm-prebuild/nar/binarycache"
	"vm-prebuild/nar/narinfo"
	"vm-prebuild/storedb"
)

// findResult returns the first cache that has all outputs of a test. Otherwise it
// may say what kept it from looking.
func (h *hook) findResult(ctx context.Context, d decision) (location, problem string) {
	var problems []string
	for _, location := range h.Caches {
		err := h.withCache(ctx, location, func(cache *binarycache.Cache) error {
			for _, name := range slices.Sorted(maps.Keys(d.derivation.Outputs)) {
				if _, err := outputInfo(ctx, cache, d.derivation.Outputs[name].Path); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			return location, ""
		}
		if !errors.Is(err, binarycache.ErrNotFound) {
			problems = append(problems, err.Error())
		}
	}
	return "", strings.Join(problems, "; ")
}

// withCache opens a cache for a while. A directory is trusted as it is; behind a URL,
// paths need a signature.
func (h *hook) withCache(ctx context.Context, location string, use func(*binarycache.Cache) error) error {
	var o binarycache.Options
	if binarycache.IsURL(location) {
		if len(h.TrustedKeys) == 0 {
			return fmt.Errorf("%s is trusted only by its signatures\nhint: --trusted-public-keys names the keys", location)
		}
		o.TrustedKeys = h.TrustedKeys
	}
	cache, err := binarycache.Open(ctx, location, o)
	if err != nil {
		return err
	}
	defer cache.Close()
	return use(cache)
}

// outputInfo is what a cache says of a path.
func outputInfo(ctx context.Context, cache *binarycache.Cache, path string) (*narinfo.NarInfo, error) {
	info, err := cache.NarInfo(ctx, hashPart(path))
	if err == nil && info.StorePath != path {
		err = fmt.Errorf("%s was asked for %s and has %s instead", cache.Name(), path, info.StorePath)
	}
	return info, err
}

// serve places outputs from the cache that has them. What they refer to must be
// among the inputs, or an output, as if they had been built here.
func (h *hook) serve(ctx context.Context, d decision, job protocol.Job) error {
	return h.withCache(ctx, d.cache, func(cache *binarycache.Cache) error {
		outputs := &storedb.Closure{Name: d.cache}
		files := cached{cache, map[string]*narinfo.NarInfo{}}
		allowed := map[string]bool{}
		for _, path := range job.Inputs {
			allowed[path] = true
		}
		for _, output := range d.derivation.Outputs {
			allowed[output.Path] = true
		}
		for _, name := range job.Outputs {
			info, err := outputInfo(ctx, cache, d.derivation.Outputs[name].Path)
			if err != nil {
				return err
			}
			for _, path := range info.References {
				if !allowed[path] {
					return fmt.Errorf("%s: %s refers to %s, which is no input of the test", d.cache, info.StorePath, path)
				}
			}
			files.infos[info.StorePath] = info
			outputs.Paths = append(outputs.Paths, storedb.PathInfo{
				Path: info.StorePath, NarHash: storedb.Hash(info.NarHash), NarSize: info.NarSize,
				Deriver: d.try.Drv, References: info.References, Sigs: info.Sigs,
			})
		}
		return h.place(ctx, d, outputs, files)
	})
}

// cached are [storedb.Files] in a cache.
type cached struct {
	cache *binarycache.Cache
	infos map[string]*narinfo.NarInfo
}

// Place unpacks one path, and checks it.
func (c cached) Place(ctx context.Context, info storedb.PathInfo, dir *os.File, name string) error {
	return c.cache.Unpack(ctx, c.infos[info.Path], dir, name)
}
