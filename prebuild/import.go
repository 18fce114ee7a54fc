package prebuild

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"golang.org/x/sys/unix"

	"vm-prebuild/nar/binarycache"
	"vm-prebuild/nar/bundle"
	"vm-prebuild/nar/narinfo"
	"vm-prebuild/storedb"
)

// ImportOptions says what to import and where from.
type ImportOptions struct {
	// From is the root of a local store, a binary cache (a directory or a file,
	// http or https URL), or a closureInfo directory, build result or manifest,
	// whose files are in the store of this machine. Empty means the root /.
	From string
	// Bundle, if not empty, is a bundle to take the files from instead; "-" is
	// Stdin.
	Bundle string

	// What and PathsFile mean what is to be imported, as for [Select]. With
	// neither, it is all that the bundle or the cache, if it is a directory, has.
	What      []string
	PathsFile string
	Stdin     io.Reader

	// TrustedKeys are those of which one must have signed each path. They are
	// needed for a cache behind a URL, unless NoCheckSigs, or What is a
	// closureInfo, which says what is right.
	TrustedKeys []signature.PublicKey
	NoCheckSigs bool

	Netrc string // file with credentials; empty means ~/.netrc, if it exists
}

// ImportSource is what an import takes paths from.
type ImportSource struct {
	Closure *storedb.Closure
	From    string        // root of the local store with the files, if Files is nil
	Files   storedb.Files // may be nil
	Image   string        // database image of the closure; may be empty
	Jobs    int           // how many paths are best taken at once; 0 is for the caller to say

	finish func(context.Context) error // may be nil
	close  func() error                // may be nil
}

// Finish is to be called after the import: a bundle from a pipe of which nothing
// was needed is read to its end, and checked.
func (s *ImportSource) Finish(ctx context.Context) error {
	if s.finish == nil {
		return nil
	}
	return s.finish(ctx)
}

// Close ends the use of the source.
func (s *ImportSource) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

// ErrNoKeys is returned when a cache behind a URL is to be believed without a
// key to check its signatures.
var ErrNoKeys = &SelectionError{"a cache behind a URL is trusted only by its signatures\nhint: give its keys with --trusted-public-keys, or say --no-check-sigs"}

// OpenImport finds out what to import and opens what has it. The caller must
// close the source.
func OpenImport(ctx context.Context, o ImportOptions) (*ImportSource, error) {
	o.From = cmp.Or(o.From, "/")
	if o.Bundle != "" {
		return o.openBundle(ctx)
	}
	if binarycache.IsURL(o.From) || exists(filepath.Join(o.From, "nix-cache-info")) {
		return o.openCache(ctx)
	}
	if !isDir(o.From) && !exists(o.From) {
		return nil, &SelectionError{o.From + ": no such directory"}
	}
	if _, err := FindClosureInfo(o.From, "/"); err == nil {
		if len(o.What) > 0 || o.PathsFile != "" {
			return nil, &SelectionError{fmt.Sprintf("%s says itself what is to be imported", o.From)}
		}
		o.What, o.From = []string{o.From}, "/"
	}
	selection, err := Select(o.What, o.PathsFile, o.From, o.Stdin)
	if err != nil {
		return nil, err
	}
	closure, err := selection.Closure(ctx, o.From)
	if err != nil {
		return nil, err
	}
	return &ImportSource{Closure: closure, From: o.From, Image: selection.Image}, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// httpJobs is how many archives are fetched from a web server at once.
const httpJobs = 8

func (o ImportOptions) openCache(ctx context.Context) (_ *ImportSource, err error) {
	selection, err := Select(o.What, o.PathsFile, "/", o.Stdin)
	if err != nil {
		return nil, err
	}
	url := binarycache.IsURL(o.From)
	if url && len(o.TrustedKeys) == 0 && !o.NoCheckSigs && selection.ClosureInfo == "" {
		return nil, ErrNoKeys
	}
	options := binarycache.Options{TrustedKeys: o.TrustedKeys, Netrc: o.Netrc}
	if home, err := os.UserHomeDir(); options.Netrc == "" && err == nil {
		options.Netrc, options.NetrcOptional = filepath.Join(home, ".netrc"), true
	}
	cache, err := binarycache.Open(ctx, o.From, options)
	if err != nil {
		return nil, err
	}
	source := &ImportSource{Image: selection.Image, close: func() error { cache.Close(); return nil }}
	defer func() {
		if err != nil {
			err = errors.Join(err, source.Close())
		}
	}()
	if url {
		source.Jobs = httpJobs
	}
	if selection.ClosureInfo != "" {
		if source.Closure, err = storedb.ReadClosureInfo(selection.ClosureInfo); err != nil {
			return nil, err
		}
		source.Files = &archives{unpack: cache.Unpack, find: func(ctx context.Context, path string) (*narinfo.NarInfo, error) {
			part, err := binarycache.HashPart(path)
			if err != nil {
				return nil, err
			}
			return cache.NarInfo(ctx, part)
		}}
		return source, nil
	}
	parts, err := o.hashParts(ctx, cache, selection)
	if err != nil {
		return nil, err
	}
	infos, err := cache.Closure(ctx, parts)
	if err != nil {
		return nil, err
	}
	if err := checkNames(cache.Name(), selection.Paths, infos); err != nil {
		return nil, err
	}
	// Large paths come first, so that none of them is left for one worker at the
	// end.
	slices.SortStableFunc(infos, func(a, b *narinfo.NarInfo) int { return cmp.Compare(b.NarSize, a.NarSize) })
	source.Closure = toClosure(cache.Name(), infos)
	source.Files = &archives{unpack: cache.Unpack, find: findIn(cache.Name(), infos)}
	return source, nil
}

// hashParts returns those of the paths to import.
func (o ImportOptions) hashParts(ctx context.Context, cache *binarycache.Cache, selection Selection) ([]string, error) {
	if len(selection.Paths) == 0 {
		parts, err := cache.HashParts(ctx)
		if errors.Is(err, binarycache.ErrNoListing) {
			return nil, &SelectionError{fmt.Sprintf("%v\nhint: say which store paths to import", err)}
		}
		return parts, err
	}
	parts := make([]string, len(selection.Paths))
	for i, path := range selection.Paths {
		var err error
		if parts[i], err = binarycache.HashPart(path); err != nil {
			return nil, &SelectionError{err.Error()}
		}
	}
	return parts, nil
}

// checkNames makes sure that paths which were asked for by their full names are
// what was found by their hash parts.
func checkNames(source string, paths []string, infos []*narinfo.NarInfo) error {
	found := make(map[string]string, len(infos))
	for _, info := range infos {
		found[info.HashPart()] = info.StorePath
	}
	for _, path := range paths {
		part, err := binarycache.HashPart(path)
		if err != nil {
			return err
		}
		if is := found[part]; is != path && part != path {
			return &MismatchError{Source: source, Reason: fmt.Sprintf("it was asked for %s and has %s instead", path, is)}
		}
	}
	return nil
}

// MismatchError says that a cache or bundle has something else than it should.
type MismatchError struct{ Source, Reason string }

func (e *MismatchError) Error() string { return e.Source + ": " + e.Reason }

// ExitCode is that of a failed check.
func (e *MismatchError) ExitCode() int { return 1 }

func toClosure(name string, infos []*narinfo.NarInfo) *storedb.Closure {
	c := &storedb.Closure{Name: name, Paths: make([]storedb.PathInfo, len(infos))}
	for i, info := range infos {
		c.Paths[i] = fromNarInfo(info)
	}
	return c
}

func (o ImportOptions) openBundle(ctx context.Context) (_ *ImportSource, err error) {
	selection, err := Select(o.What, o.PathsFile, "/", o.Stdin)
	if err != nil {
		return nil, err
	}
	source := &ImportSource{Image: selection.Image}
	defer func() {
		if err != nil {
			err = errors.Join(err, source.Close())
		}
	}()
	var infos []*narinfo.NarInfo
	var unpack unpackFunc
	var expect func([]string) error
	name := o.Bundle
	if name == "-" {
		if o.PathsFile == "-" {
			return nil, &SelectionError{"the bundle and the list of paths cannot both be stdin"}
		}
		name = "stdin"
		stream, err := bundle.NewStream(ctx, o.Stdin, name)
		if err != nil {
			return nil, err
		}
		infos, unpack, expect = stream.Infos(), stream.Unpack, stream.Expect
		source.finish = stream.Close
	} else {
		f, size, err := openFile(name)
		if err != nil {
			return nil, err
		}
		source.close = f.Close
		file, err := bundle.Open(f, size, name)
		if err != nil {
			return nil, err
		}
		infos, unpack = file.Infos(), file.Unpack
	}
	find := findIn(name, infos)
	if selection.ClosureInfo != "" {
		if source.Closure, err = storedb.ReadClosureInfo(selection.ClosureInfo); err != nil {
			return nil, err
		}
		inOrder(source.Closure, infos)
	} else {
		if infos, err = closureWithin(name, infos, selection.Paths); err != nil {
			return nil, err
		}
		source.Closure = toClosure(name, infos)
	}
	if len(o.TrustedKeys) > 0 {
		for _, info := range infos {
			if err := info.Verify(o.TrustedKeys...); err != nil {
				return nil, fmt.Errorf("bundle %s: %w", name, err)
			}
		}
	}
	source.Files = &archives{unpack: unpack, find: find}
	if expect != nil {
		source.Files = &stream{archives{unpack: unpack, find: find}, expect, nil}
	}
	return source, nil
}

// openFile opens a bundle that can be read anywhere, and returns its size.
func openFile(name string) (*os.File, int64, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO may have no writer
	if err != nil {
		return nil, 0, &SelectionError{fmt.Sprintf("open bundle: %v", err)}
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &SelectionError{name + ": is not a regular file\nhint: give a pipe or a device as '--bundle - <FILE'"}
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// inOrder puts the paths of a closure into the order of those of a bundle; those
// that it lacks come last.
func inOrder(c *storedb.Closure, infos []*narinfo.NarInfo) {
	at := make(map[string]int, len(infos))
	for i, info := range infos {
		at[info.StorePath] = i - len(infos)
	}
	slices.SortStableFunc(c.Paths, func(a, b storedb.PathInfo) int { return cmp.Compare(at[a.Path], at[b.Path]) })
}

// closureWithin returns those of infos, which are in reference order, that paths
// need; all of them if there are no paths.
func closureWithin(name string, infos []*narinfo.NarInfo, paths []string) ([]*narinfo.NarInfo, error) {
	if len(paths) == 0 {
		return infos, nil
	}
	names := make(map[string]string, len(infos)) // by path and by hash part
	for _, info := range infos {
		names[info.StorePath], names[info.HashPart()] = info.StorePath, info.StorePath
	}
	needed := map[string]bool{}
	for _, path := range paths {
		is, ok := names[path]
		if !ok {
			return nil, &MismatchError{Source: name, Reason: path + " is not in it"}
		}
		needed[is] = true
	}
	var chosen []*narinfo.NarInfo
	for _, info := range slices.Backward(infos) { // referrers first
		if needed[info.StorePath] {
			chosen = append(chosen, info)
			for _, reference := range info.References {
				needed[reference] = true
			}
		}
	}
	slices.Reverse(chosen)
	return chosen, nil
}

type unpackFunc func(ctx context.Context, info *narinfo.NarInfo, dir *os.File, name string) error

type findFunc func(ctx context.Context, path string) (*narinfo.NarInfo, error)

// findIn looks paths up among infos.
func findIn(name string, infos []*narinfo.NarInfo) findFunc {
	byPath := make(map[string]*narinfo.NarInfo, len(infos))
	for _, info := range infos {
		byPath[info.StorePath] = info
	}
	return func(_ context.Context, path string) (*narinfo.NarInfo, error) {
		info, ok := byPath[path]
		if !ok {
			return nil, &MismatchError{Source: name, Reason: path + " is not in it"}
		}
		return info, nil
	}
}

// archives are [storedb.Files] in a cache or a bundle.
type archives struct {
	find   findFunc
	unpack unpackFunc
}

func (a *archives) Place(ctx context.Context, want storedb.PathInfo, dir *os.File, name string) error {
	info, err := a.find(ctx, want.Path)
	if err != nil {
		return err
	}
	if info.StorePath != want.Path || storedb.Hash(info.NarHash) != want.NarHash || want.NarSize > 0 && info.NarSize != want.NarSize {
		return &MismatchError{Source: want.Path, Reason: fmt.Sprintf("what is to be had is %s with hash %s (%d bytes), registered is %s (%d bytes)",
			info.StorePath, info.NarHash, info.NarSize, want.NarHash, want.NarSize)}
	}
	return a.unpack(ctx, info, dir, name)
}

// stream are archives that come in one order.
type stream struct {
	archives
	expect func(paths []string) error
	err    error // of expect
}

func (s *stream) Expect(infos []storedb.PathInfo) {
	paths := make([]string, len(infos))
	for i, info := range infos {
		paths[i] = info.Path
	}
	s.err = s.expect(paths)
}

func (s *stream) Place(ctx context.Context, info storedb.PathInfo, dir *os.File, name string) error {
	if s.err != nil {
		return s.err
	}
	return s.archives.Place(ctx, info, dir, name)
}
