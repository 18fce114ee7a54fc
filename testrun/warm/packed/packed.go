// Package packed compresses files that are large and have holes, such as guests'
// memories, and makes them again. [Compress] and [Decompress] are all of it.
//
// The format is that of seekable zstd (contrib/seekable_format in zstd's source):
// frames that can be decompressed on their own, behind each other, and behind the
// last a skippable frame with a table of their sizes. Here each frame holds 4 MiB of
// the file, the last one what remains. Holes are frames of zeros, of 400 bytes,
// which are neither read when packing nor written when unpacking: so any zstd makes
// the same file again, and both directions use all CPUs.
//
// What is compressed depends on the file's content alone: not on where its holes are
// and not on the number of CPUs. What is decompressed comes from strangers; neither
// takes more memory than a few frames, nor more of the disk than the size that the
// caller expects.
package packed

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	seekable "github.com/SaveTheRbtz/zstd-seekable-format-go/pkg"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// frameBytes is what a frame has of the file. Twice as large ones save less than
	// one part in a hundred.
	frameBytes = 4 << 20
	// pageBytes is the unit of holes.
	pageBytes = 4 << 10

	// maxFrames bounds files: 4 TiB. The table of such a file has 12 MiB.
	maxFrames = 1 << 20
	// The table: a skippable frame's header, entries, and a footer that begins with
	// their number and ends with the magic number.
	headerBytes, entryBytes, footerBytes = 8, 12, 9
	tableMagic                           = 0x8F92EAB1
)

// CorruptError says that a packed file is not what was packed, or not packed by us.
type CorruptError struct{ Reason string }

func (e *CorruptError) Error() string { return e.Reason }

func corrupt(format string, args ...any) error {
	return &CorruptError{fmt.Sprintf(format, args...)}
}

// frames is the number of frames of a file.
func frames(size int64) int64 { return (size + frameBytes - 1) / frameBytes }

// Compress writes a file that nobody changes meanwhile. Progress, which may be nil, is
// told how many bytes of the file have been written, from time to time.
func Compress(ctx context.Context, dst io.Writer, src *os.File, progress func(done int64)) error {
	info, err := src.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if frames(size) > maxFrames {
		return fmt.Errorf("%s has %d bytes, more than can be packed", src.Name(), size)
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(frameBytes),
		zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)))
	if err != nil {
		return err
	}
	w, err := seekable.NewWriter(dst, encoder)
	if err != nil {
		return err
	}
	var at int64
	zeros := make([]byte, frameBytes)
	next := func() ([]byte, error) {
		length := min(size-at, frameBytes)
		if length == 0 {
			return nil, nil
		}
		frame := zeros[:length]
		data, err := dataBehind(src, at, size)
		if err == nil && data < at+length {
			frame = make([]byte, length)
			_, err = io.ReadFull(io.NewSectionReader(src, at, length), frame)
		}
		at += length
		return frame, err
	}
	tell := func(f seekable.FrameOffsetEntry) {
		if progress != nil {
			progress(int64(f.DecompressedOffset) + int64(f.DecompressedSize))
		}
	}
	if err := w.WriteMany(ctx, next, seekable.WithWriteCallback(tell)); err != nil {
		return err
	}
	return w.Close()
}

// dataBehind is where the first data of a file is that begins at a place or later:
// its size when there is none.
func dataBehind(f *os.File, at, size int64) (int64, error) {
	data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // only a hole is left
		return size, nil
	case errors.Is(err, unix.EINVAL): // the file system knows no holes
		return at, nil
	}
	return data, err
}

// Decompress makes the file of that size again in dst, which is empty. What is all
// zeros becomes a hole. A packed file that is not right is a *[CorruptError]; but only
// the caller knows whether the content is what it is to be.
func Decompress(ctx context.Context, dst, src *os.File, size int64) error {
	table, err := readTable(src, size)
	if err != nil {
		return err
	}
	if err := dst.Truncate(size); err != nil {
		return err
	}
	workers := runtime.GOMAXPROCS(0)
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(workers), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxWindow(frameBytes))
	if err != nil {
		return err
	}
	defer decoder.Close()
	indices := make(chan int64)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(indices)
		for i := range table.NumFrames() {
			select {
			case indices <- i:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	for range workers {
		g.Go(func() error {
			buffer := make([]byte, frameBytes)
			for i := range indices {
				entry, _ := table.EntryByID(i)
				if err := unpack(dst, src, entry, decoder, buffer); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// readTable reads the sizes of the frames, which must be those of a file of that
// size.
func readTable(src *os.File, size int64) (*seekable.SeekTable, error) {
	if size < 0 || frames(size) > maxFrames {
		return nil, corrupt("a file of %d bytes is nothing that is packed", size)
	}
	info, err := src.Stat()
	if err != nil {
		return nil, err
	}
	length := headerBytes + entryBytes*frames(size) + footerBytes
	if info.Size() < length {
		return nil, corrupt("it is cut off: it has %d bytes", info.Size())
	}
	text := make([]byte, length)
	if _, err := src.ReadAt(text, info.Size()-length); err != nil {
		return nil, err
	}
	// The footer first: it tells a file that was cut off from one of another size.
	footer := text[length-footerBytes:]
	if n := int64(binary.LittleEndian.Uint32(footer)); n != frames(size) && binary.LittleEndian.Uint32(footer[footerBytes-4:]) == tableMagic {
		return nil, corrupt("it has %d frames, and a file of %d bytes has %d", n, size, frames(size))
	}
	table, err := seekable.NewSeekTable(text)
	if err != nil {
		return nil, corrupt("it is cut off, or no packed file: %v", err)
	}
	var end uint64
	for i := range table.NumFrames() {
		entry, _ := table.EntryByID(i)
		if want := min(size-i*frameBytes, frameBytes); int64(entry.DecompressedSize) != want {
			return nil, corrupt("frame %d is said to have %d bytes, and has to have %d", i, entry.DecompressedSize, want)
		}
		// What cannot be compressed becomes a little longer.
		if entry.CompressedSize > 2*frameBytes {
			return nil, corrupt("frame %d is said to take %d bytes", i, entry.CompressedSize)
		}
		end = entry.CompressedOffset + uint64(entry.CompressedSize)
	}
	if end != uint64(info.Size()-length) {
		return nil, corrupt("its frames are said to take %d bytes, and take %d", end, info.Size()-length)
	}
	return table, nil
}

// unpack writes what is in a frame and not zero.
func unpack(dst, src *os.File, entry seekable.FrameOffsetEntry, decoder *zstd.Decoder, buffer []byte) error {
	compressed := make([]byte, entry.CompressedSize)
	if _, err := src.ReadAt(compressed, int64(entry.CompressedOffset)); err != nil {
		return err
	}
	// More than the buffer takes is an error.
	data, err := decoder.DecodeAll(compressed, buffer[:0:entry.DecompressedSize])
	if err != nil {
		return corrupt("frame %d: %v", entry.ID, err)
	}
	if len(data) != int(entry.DecompressedSize) {
		return corrupt("frame %d has %d bytes, and is said to have %d", entry.ID, len(data), entry.DecompressedSize)
	}
	at := int64(entry.DecompressedOffset)
	for len(data) > 0 {
		zero := countPages(data, true)
		data, at = data[zero:], at+int64(zero)
		full := countPages(data, false)
		if _, err := dst.WriteAt(data[:full], at); err != nil {
			return err
		}
		data, at = data[full:], at+int64(full)
	}
	return nil
}

var zeroPage [pageBytes]byte

// countPages is the length of the pages that data begins with that are all zeros, or
// that are not.
func countPages(data []byte, zero bool) int {
	n := 0
	for n < len(data) {
		page := data[n:min(n+pageBytes, len(data))]
		if bytes.Equal(page, zeroPage[:len(page)]) != zero {
			break
		}
		n += len(page)
	}
	return n
}
