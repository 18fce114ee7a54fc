package binarycache

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"github.com/nix-community/go-nix/pkg/nixbase32"
	"golang.org/x/sync/errgroup"

	"vm-prebuild/nar"
	"vm-prebuild/nar/compress"
	"vm-prebuild/nar/narinfo"
	"vm-prebuild/nar/storepath"
)

// WriteOptions says what to write into which cache, and how.
type WriteOptions struct {
	Location string // a directory, by its path or a file URL; made if missing

	// Paths are what the cache is to have. Their references must be among them or
	// in the cache. Of each, the fields about its file are ignored; it gets those
	// and signatures in a copy.
	Paths []*narinfo.NarInfo
	// File returns where the files of a store path are.
	File func(storePath string) string

	Compression compress.Method       // None, Zstd or XZ
	Level       int                   // of the compression; 0 is the usual one
	Keys        []signature.SecretKey // sign all that is written
	Listings    bool                  // write what is in each archive into a file beside it
	Jobs        int                   // paths at once; 0 or less means one for each CPU
	DryRun      bool                  // only find out what is missing

	// Progress, if not nil, is called when a path is complete and from time to
	// time before, one call at a time. It must return soon.
	Progress func(Progress)
}

// Progress is how far something has come.
type Progress struct {
	Paths      int   // that are complete
	TotalPaths int   // that there are to do
	Bytes      int64 // of archives, uncompressed
	TotalBytes int64
}

// WriteSummary is what has been written, or what would be.
type WriteSummary struct {
	Paths     int   // given
	Present   int   // of these, in the cache before
	Written   int   // of these, new
	NarBytes  int64 // sizes of the archives of the new ones
	FileBytes int64 // sizes of their files
}

// Write brings store paths into a cache, those that it lacks. It can be killed
// at any moment, and others can write to the cache at the same time: a narinfo
// is there when all is there that it needs. Files that differ from what is known
// of their path are a *ContentsError, and end it.
func Write(ctx context.Context, o WriteOptions) (summary WriteSummary, err error) {
	dir, u, err := parseLocation(o.Location)
	if err == nil && u != nil {
		err = fmt.Errorf("%s: a cache is written to a directory or a file URL", u.Redacted())
	}
	if err != nil {
		return WriteSummary{}, &Error{Cache: "cache", File: "location", Reason: err.Error(), Err: err}
	}
	if o.Jobs <= 0 {
		o.Jobs = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	w := &writer{WriteOptions: o, dir: dir}
	defer func() {
		if w.temp != nil {
			err = errors.Join(err, w.temp.remove())
		}
	}()
	if err := w.prepare(ctx); err != nil {
		return WriteSummary{}, err
	}
	if err := w.findMissing(ctx); err != nil || o.DryRun || len(w.missing) == 0 {
		return w.summary, err
	}
	if err := w.write(ctx); err != nil {
		return WriteSummary{}, err
	}
	return w.summary, nil
}

// writer is one call of Write.
type writer struct {
	WriteOptions
	dir        string
	compressor *compress.Compressor
	temp       *tempDir
	missing    []*narinfo.NarInfo // each after those that it refers to

	mu       sync.Mutex
	progress Progress
	reported int64 // progress.Bytes when it was last shown
	summary  WriteSummary

	// By number in missing.
	waiting   []int  // references whose narinfo is not there yet
	complete  []bool // its archive is there
	referrers [][]int
}

// prepare checks the options, makes the cache if it does not exist, and checks
// what it is.
func (w *writer) prepare(ctx context.Context) (err error) {
	if w.compressor, err = compress.New(w.Compression, w.Level, w.Jobs); err != nil {
		return err
	}
	file := filepath.Join(w.dir, cacheInfoFile)
	text, err := os.ReadFile(file)
	if err == nil {
		return checkCacheInfo(w.dir, string(text))
	}
	if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("write binary cache: %w", err)
	}
	if w.DryRun {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(w.dir, narDir), 0o755); err != nil {
		return fmt.Errorf("write binary cache: %w", err)
	}
	if w.temp, err = newTempDir(ctx, w.dir); err != nil {
		return err
	}
	return w.temp.writeFile(file, []byte("StoreDir: "+storepath.Dir+"\n"))
}

// findMissing sets missing to those of the paths that the cache lacks. What it
// has half, without the archive or with a narinfo that cannot be read, it lacks.
func (w *writer) findMissing(ctx context.Context) error {
	paths, err := Order(w.Paths)
	if err != nil {
		return err
	}
	cache := &Cache{name: w.dir}
	present := make([]bool, len(paths))
	if dir, err := openDir(w.dir); err == nil {
		cache.source = dir
		defer dir.close()
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(w.Jobs)
		for i, info := range paths {
			group.Go(func() error {
				present[i] = cache.has(ctx, info)
				return ctx.Err()
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	w.summary = WriteSummary{Paths: len(paths)}
	known := make(map[string]bool, len(paths))
	for i, info := range paths {
		known[info.StorePath] = true
		if present[i] {
			w.summary.Present++
			continue
		}
		w.missing = append(w.missing, info)
		w.summary.Written++
		w.summary.NarBytes += info.NarSize
	}
	w.progress = Progress{TotalPaths: w.summary.Written, TotalBytes: w.summary.NarBytes}
	for _, info := range w.missing {
		for _, reference := range info.References {
			if known[reference] {
				continue
			}
			if cache.source == nil || !cache.has(ctx, &narinfo.NarInfo{StorePath: reference}) {
				return &Error{Cache: w.dir, File: info.HashPart() + narInfoSuffix,
					Reason: fmt.Sprintf("%s refers to %s, which is neither given nor in the cache", info.StorePath, reference)}
			}
			known[reference] = true
		}
	}
	return nil
}

// has says whether the cache has a path and its archive.
func (c *Cache) has(ctx context.Context, want *narinfo.NarInfo) bool {
	info, err := c.NarInfo(ctx, want.HashPart())
	if err != nil || info.StorePath != want.StorePath {
		return false
	}
	f, size, err := c.source.open(ctx, info.URL, -1)
	if err != nil {
		return false
	}
	f.Close()
	return info.FileSize == 0 || size == info.FileSize
}

// write writes the missing paths.
func (w *writer) write(ctx context.Context) (err error) {
	if w.temp == nil {
		if w.temp, err = newTempDir(ctx, w.dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(w.dir, narDir), 0o755); err != nil {
		return fmt.Errorf("write binary cache: %w", err)
	}
	index := make(map[string]int, len(w.missing))
	w.waiting, w.complete = make([]int, len(w.missing)), make([]bool, len(w.missing))
	w.referrers = make([][]int, len(w.missing))
	for i, info := range w.missing {
		index[info.StorePath] = i
		for _, reference := range info.References {
			if j, ok := index[reference]; ok && j != i {
				w.waiting[i]++
				w.referrers[j] = append(w.referrers[j], i)
			}
		}
	}
	w.Progress(w.progress)
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(w.Jobs)
	for i := range w.missing {
		if groupCtx.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := w.path(groupCtx, i); err != nil {
				return err
			}
			return w.publish(i)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// path writes the archive of path number i, and its listing.
func (w *writer) path(ctx context.Context, i int) (err error) {
	info := *w.missing[i]
	w.missing[i] = &info
	f, err := w.temp.create()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	file := &fileWriter{w: f, digest: sha256.New()}
	listing, err := WriteArchive(ctx, file, &info, w.compressor, w.File(info.StorePath), w.Listings, w.count)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write binary cache: %w", err)
	}
	fileHash := narinfo.Hash(file.digest.Sum(nil))
	info.FileHash, info.FileSize = &fileHash, file.n
	info.Compression = string(w.Compression)
	info.URL = narDir + "/" + nixbase32.EncodeToString(fileHash[:]) + ".nar" + w.Compression.Suffix()
	if err := os.Rename(f.Name(), filepath.Join(w.dir, filepath.FromSlash(info.URL))); err != nil {
		return fmt.Errorf("write binary cache: %w", err)
	}
	if listing != nil {
		if err := w.writeListing(&info, listing); err != nil {
			return err
		}
	}
	info.Sigs = append([]string(nil), info.Sigs...) // Sign changes it
	for _, key := range w.Keys {
		if err := info.Sign(key); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.summary.FileBytes += file.n
	return nil
}

// writeListing writes what is in an archive, if JSON can say it.
func (w *writer) writeListing(info *narinfo.NarInfo, listing *nar.Listing) error {
	text, err := json.Marshal(listing)
	if errors.Is(err, nar.ErrNotUTF8) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", info.StorePath, err)
	}
	return w.temp.writeFile(filepath.Join(w.dir, info.HashPart()+listingSuffix), text)
}

// publish writes the narinfo of path number i, whose archive is there, once
// those of its references are; and then those that have waited for it.
func (w *writer) publish(i int) error {
	w.mu.Lock()
	w.complete[i] = true
	ready := []int{}
	if w.waiting[i] == 0 {
		ready = append(ready, i)
	}
	w.mu.Unlock()
	for len(ready) > 0 {
		i, ready = ready[len(ready)-1], ready[:len(ready)-1]
		info := w.missing[i]
		if err := w.temp.writeFile(filepath.Join(w.dir, info.HashPart()+narInfoSuffix), []byte(info.String())); err != nil {
			return err
		}
		w.mu.Lock()
		for _, j := range w.referrers[i] {
			if w.waiting[j]--; w.waiting[j] == 0 && w.complete[j] {
				ready = append(ready, j)
			}
		}
		w.progress.Paths++
		w.Progress(w.progress)
		w.mu.Unlock()
	}
	return nil
}

// count notes that n bytes of archives are done.
func (w *writer) count(n int) {
	const step = 4 << 20
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.progress.Bytes += int64(n); w.progress.Bytes-w.reported >= step {
		w.reported = w.progress.Bytes
		w.Progress(w.progress)
	}
}

// WriteArchive writes the archive of the files at path, compressed, to w, and
// compares it with info; a NarSize of 0 is one that is not known, and is set.
// Files that are not those that info describes are a *ContentsError. Of a
// listing, it returns nil unless wanted. count, if not nil, is called with
// the number of bytes of the archive that have been read since the last call.
func WriteArchive(ctx context.Context, w io.Writer, info *narinfo.NarInfo, c *compress.Compressor, path string, list bool, count func(int)) (*nar.Listing, error) {
	stream := c.NewWriter(ctx, w, info.NarSize)
	archive := &archiveWriter{ctx: ctx, w: stream, limit: info.NarSize, digest: sha256.New(), count: count}
	var listing *nar.Listing
	var err error
	if list {
		listing, err = nar.DumpListing(archive, path)
	} else {
		err = nar.Dump(archive, path)
	}
	if closeErr := stream.Close(); err == nil {
		err = closeErr
	}
	got := narinfo.Hash(archive.digest.Sum(nil))
	switch {
	case errors.Is(err, errTooLong):
		return nil, &ContentsError{info.StorePath, fmt.Sprintf("the files at %s have been modified: their archive has more than the %d bytes that are registered%s", path, info.NarSize, repairHint), nil}
	case errors.Is(err, os.ErrNotExist):
		return nil, &ContentsError{info.StorePath, err.Error() + repairHint, err}
	case err != nil:
		return nil, fmt.Errorf("archive %s: %w", info.StorePath, err)
	case got != info.NarHash || info.NarSize > 0 && archive.n != info.NarSize:
		return nil, &ContentsError{info.StorePath, fmt.Sprintf("the files at %s have been modified: their archive has the hash %s (%d bytes), registered is %s (%d bytes)%s",
			path, got, archive.n, info.NarHash, info.NarSize, repairHint), nil}
	}
	info.NarSize = archive.n
	return listing, nil
}

const repairHint = "\nhint: repair the store with 'nix-store --verify --check-contents --repair'"

// archiveWriter hashes and counts an archive while it is written.
type archiveWriter struct {
	ctx    context.Context
	w      io.Writer
	limit  int64 // in bytes; 0 for none
	digest hash.Hash
	n      int64
	count  func(int)
}

func (a *archiveWriter) Write(p []byte) (int, error) {
	if err := a.ctx.Err(); err != nil {
		return 0, context.Cause(a.ctx)
	}
	a.digest.Write(p)
	if a.n += int64(len(p)); a.limit > 0 && a.n > a.limit {
		return 0, errTooLong
	}
	if a.count != nil {
		a.count(len(p))
	}
	return a.w.Write(p)
}

// fileWriter hashes and counts a file while it is written.
type fileWriter struct {
	w      io.Writer
	digest hash.Hash
	n      int64
}

func (f *fileWriter) Write(p []byte) (int, error) {
	f.digest.Write(p)
	f.n += int64(len(p))
	return f.w.Write(p)
}
