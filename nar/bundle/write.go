package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"golang.org/x/sync/errgroup"

	"vm-prebuild/nar/binarycache"
	"vm-prebuild/nar/compress"
	"vm-prebuild/nar/narinfo"
)

// Options says what to write into a bundle, and how.
type Options struct {
	// Paths are what the bundle is to have: a closure. Their NarSize must be known.
	Paths []*narinfo.NarInfo
	// File returns where the files of a store path are.
	File func(storePath string) string

	Level    int                   // of the compression, zstd; 0 is the usual one
	Keys     []signature.SecretKey // sign all paths
	Jobs     int                   // paths at once; 0 or less means one for each CPU
	Progress func(binarycache.Progress)
}

// inMemory is the size up to which archives are compressed before it is their
// turn. Each of the others is compressed by several goroutines on its own.
const inMemory = 1 << 20

// Write writes a bundle to w and returns its length in bytes. Files that differ
// from what is known of their path are a *[binarycache.ContentsError]; what has
// been written then is no bundle.
func Write(ctx context.Context, w io.Writer, o Options) (int64, error) {
	if o.Jobs <= 0 {
		o.Jobs = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = func(binarycache.Progress) {}
	}
	compressor, err := compress.New(compress.Zstd, o.Level, o.Jobs)
	if err != nil {
		return 0, err
	}
	b := &writer{Options: o, w: w, compressor: compressor}
	if err := b.prepare(); err != nil {
		return 0, err
	}
	metadata, err := b.writeMetadata(ctx)
	if err != nil {
		return 0, err
	}
	if err := b.writeArchives(ctx); err != nil {
		return 0, err
	}
	err = b.writeIndex(metadata)
	return b.n, err
}

// writer is one call of Write.
type writer struct {
	Options
	w          io.Writer
	n          int64 // bytes written
	compressor *compress.Compressor
	infos      []*narinfo.NarInfo
	offsets    []int64

	mu       sync.Mutex
	progress binarycache.Progress
	reported int64
}

func (b *writer) Write(p []byte) (int, error) {
	n, err := b.w.Write(p)
	b.n += int64(n)
	if err != nil {
		err = fmt.Errorf("write bundle: %w", err)
	}
	return n, err
}

// prepare puts the paths in order, makes sure that they are a closure, and
// signs them.
func (b *writer) prepare() error {
	ordered, err := binarycache.Order(b.Paths)
	if err != nil {
		return err
	}
	known := make(map[string]bool, len(ordered))
	for _, info := range ordered {
		info := *info
		info.URL, info.Compression = "bundle", string(compress.Zstd)
		info.FileHash, info.FileSize = nil, 0
		known[info.StorePath] = true
		if info.NarSize <= 0 {
			return fmt.Errorf("bundle: the size of %s is not registered", info.StorePath)
		}
		for _, reference := range info.References {
			if !known[reference] {
				return fmt.Errorf("bundle: %s refers to %s, which is not given", info.StorePath, reference)
			}
		}
		info.Sigs = append([]string(nil), info.Sigs...) // Sign changes it
		for _, key := range b.Keys {
			if err := info.Sign(key); err != nil {
				return err
			}
		}
		b.infos = append(b.infos, &info)
		b.progress.TotalBytes += info.NarSize
	}
	if len(b.infos) > maxPaths {
		return fmt.Errorf("bundle: %d paths are more than %d", len(b.infos), maxPaths)
	}
	b.progress.TotalPaths = len(b.infos)
	return nil
}

// writeMetadata writes all up to the first archive.
func (b *writer) writeMetadata(ctx context.Context) (digest [sha256.Size]byte, err error) {
	var text strings.Builder
	for _, info := range b.infos {
		text.WriteString(info.String() + "\n")
	}
	if text.Len() > maxMetadata {
		return digest, fmt.Errorf("bundle: metadata have more than %d bytes", maxMetadata)
	}
	return b.writeText(ctx, text.String())
}

func (b *writer) writeText(ctx context.Context, text string) (digest [sha256.Size]byte, err error) {
	var packed bytes.Buffer
	stream := b.compressor.NewWriter(ctx, &packed, int64(len(text)))
	_, err = io.WriteString(stream, text)
	if closeErr := stream.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return digest, fmt.Errorf("bundle: %w", err)
	}
	begin := []byte(magic)
	begin = binary.LittleEndian.AppendUint64(begin, uint64(packed.Len()))
	begin = binary.LittleEndian.AppendUint64(begin, uint64(len(text)))
	begin = append(begin, packed.Bytes()...)
	digest = sha256.Sum256(begin)
	_, err = b.Write(append(begin, digest[:]...))
	return digest, err
}

// writeArchives writes the archives in their order. Small ones wait in memory
// for their turn, one for each job.
func (b *writer) writeArchives(ctx context.Context) error {
	b.Progress(b.progress)
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(b.Jobs)
	turn := make(chan struct{})
	close(turn)
	for i := range b.infos {
		mine, next := turn, make(chan struct{})
		turn = next
		if groupCtx.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := b.archive(groupCtx, b.infos[i], mine); err != nil {
				return err
			}
			close(next)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// archive writes one archive once it is its turn.
func (b *writer) archive(ctx context.Context, info *narinfo.NarInfo, turn <-chan struct{}) error {
	var ready bytes.Buffer
	if info.NarSize <= inMemory {
		if err := b.compress(ctx, &ready, info); err != nil {
			return err
		}
	}
	select {
	case <-turn:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	b.offsets = append(b.offsets, b.n)
	var err error
	if info.NarSize <= inMemory {
		_, err = b.Write(ready.Bytes())
	} else {
		err = b.compress(ctx, b, info)
	}
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.progress.Paths++
	b.Progress(b.progress)
	return nil
}

// compress writes the chunks of an archive to w.
func (b *writer) compress(ctx context.Context, w io.Writer, info *narinfo.NarInfo) error {
	if _, err := binarycache.WriteArchive(ctx, chunkWriter{w}, info, b.compressor, b.File(info.StorePath), false, b.count); err != nil {
		return err
	}
	_, err := w.Write(make([]byte, 4))
	return err
}

// chunkWriter makes a chunk of each write.
type chunkWriter struct{ w io.Writer }

func (c chunkWriter) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if _, err := c.w.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(p)))); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}

// count notes that n bytes of archives are done.
func (b *writer) count(n int) {
	const step = 4 << 20
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.progress.Bytes += int64(n); b.progress.Bytes-b.reported >= step {
		b.reported = b.progress.Bytes
		b.Progress(b.progress)
	}
}

func (b *writer) writeIndex(metadata [sha256.Size]byte) error {
	var end []byte
	for _, offset := range b.offsets {
		end = binary.LittleEndian.AppendUint64(end, uint64(offset))
	}
	end = binary.LittleEndian.AppendUint64(end, uint64(b.n))
	end = binary.LittleEndian.AppendUint64(end, uint64(len(b.offsets)))
	digest := sha256.Sum256(append(metadata[:], end...))
	end = append(append(end, digest[:]...), magic...)
	_, err := b.Write(end)
	return err
}
