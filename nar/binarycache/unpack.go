package binarycache

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math"
	"os"

	"vm-prebuild/nar"
	"vm-prebuild/nar/compress"
	"vm-prebuild/nar/narinfo"
)

// Unpack fetches the archive of a path and makes its files as name in the open
// directory dir, as [nar.Unpack] does, while it checks sizes and hashes against
// info. After an error, what has been made may be left.
func (c *Cache) Unpack(ctx context.Context, info *narinfo.NarInfo, dir *os.File, name string) error {
	size, limit := int64(-1), maxFileSize(info.NarSize)
	if info.FileSize > limit {
		return c.lie(info.URL, nil, "its narinfo says that it has %d bytes, which is too much for an archive of %d", info.FileSize, info.NarSize)
	}
	if info.FileSize > 0 {
		size, limit = info.FileSize, info.FileSize
	}
	f, has, err := c.source.open(ctx, info.URL, size)
	if errors.Is(err, fs.ErrNotExist) {
		return c.errorf(info.URL, ErrNotFound, "no such file, although %s%s names it", info.HashPart(), narInfoSuffix)
	}
	if err != nil {
		return c.wrap(err)
	}
	defer f.Close()
	if size >= 0 && has >= 0 && has != size {
		return c.lie(info.URL, nil, "it has %d bytes, its narinfo says %d", has, size)
	}
	file := &fileReader{r: f, limit: limit, digest: sha256.New()}
	err = UnpackArchive(ctx, file, info, &c.decompressor, dir, name)
	switch {
	case file.err != nil:
		return c.wrap(file.err)
	case file.tooLong:
		return c.tooLong(info, file)
	}
	if contents, ok := errors.AsType[*ContentsError](err); ok {
		return c.lie(info.URL, err, "%s", contents.Reason)
	}
	if err != nil {
		return err
	}
	return c.checkFile(info, file)
}

// maxFileSize is the most that the file of an archive of narSize bytes may have,
// because nobody has signed its narinfo's FileSize: what cannot be compressed
// gets longer by less than this.
func maxFileSize(narSize int64) int64 {
	limit := narSize + narSize/8 + 1<<20
	if limit < narSize { // it is too large to be a number
		return math.MaxInt64
	}
	return limit
}

// tooLong is the error for a file that goes on past its limit.
func (c *Cache) tooLong(info *narinfo.NarInfo, file *fileReader) error {
	if info.FileSize > 0 {
		return c.lie(info.URL, nil, "it has more than the %d bytes that its narinfo says", info.FileSize)
	}
	return c.lie(info.URL, nil, "it has more than %d bytes, which is too much for an archive of %d", file.limit, info.NarSize)
}

// checkFile compares what has been read of a file with its narinfo.
func (c *Cache) checkFile(info *narinfo.NarInfo, file *fileReader) error {
	// Decompression ends with its format, not always with the file.
	if _, err := io.Copy(io.Discard, file); err != nil {
		if file.tooLong {
			return c.tooLong(info, file)
		}
		return c.wrap(err)
	}
	if info.FileSize > 0 && file.n != info.FileSize {
		return c.lie(info.URL, nil, "it has %d bytes, its narinfo says %d", file.n, info.FileSize)
	}
	if got := narinfo.Hash(file.digest.Sum(nil)); info.FileHash != nil && got != *info.FileHash {
		return c.lie(info.URL, nil, "it has the hash %s, its narinfo says %s", got, info.FileHash)
	}
	return nil
}

// fileReader hashes a file while it is read, and tells the errors of reading it
// from those of what is in it.
type fileReader struct {
	r       io.Reader
	limit   int64 // in bytes
	digest  hash.Hash
	n       int64
	tooLong bool
	err     error
}

func (f *fileReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	f.digest.Write(p[:n])
	f.n += int64(n)
	if f.n > f.limit {
		f.tooLong = true
		return 0, fmt.Errorf("more than %d bytes", f.limit)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

// ContentsError says that a file that should hold the archive of a store path
// does not.
type ContentsError struct {
	StorePath string
	Reason    string
	Err       error // the cause; may be nil
}

func (e *ContentsError) Error() string { return e.StorePath + ": " + e.Reason }

func (e *ContentsError) Unwrap() error { return e.Err }

// ExitCode is that of a failed check.
func (e *ContentsError) ExitCode() int { return 1 }

// UnpackArchive makes the files of the archive of a path as name in dir, out of
// the compressed stream r, and compares size and hash of the archive with info.
// It reads no more of the archive than info's NarSize. What is wrong with the
// contents is a *ContentsError. After an error, what has been made may be left.
func UnpackArchive(ctx context.Context, r io.Reader, info *narinfo.NarInfo, d *compress.Decompressor, dir *os.File, name string) error {
	stream, err := d.NewReader(r, compress.Method(info.Compression))
	if err != nil {
		return &ContentsError{info.StorePath, err.Error(), err}
	}
	defer stream.Close()
	archive := &archiveReader{r: stream, left: info.NarSize, digest: sha256.New()}
	err = nar.Unpack(ctx, archive, dir, name)
	format, isFormat := errors.AsType[*nar.FormatError](err)
	stream2, isStream := errors.AsType[*compress.Error](err)
	switch {
	case archive.tooLong:
		return &ContentsError{info.StorePath, fmt.Sprintf("the archive has more than the %d bytes that it should have", info.NarSize), err}
	case isStream:
		return &ContentsError{info.StorePath, stream2.Error(), err}
	case isFormat:
		return &ContentsError{info.StorePath, format.Error(), err}
	case err != nil:
		return fmt.Errorf("unpack %s: %w", info.StorePath, err)
	case archive.left > 0:
		return &ContentsError{info.StorePath, fmt.Sprintf("the archive has %d bytes, it should have %d", info.NarSize-archive.left, info.NarSize), nil}
	}
	if got := narinfo.Hash(archive.digest.Sum(nil)); got != info.NarHash {
		return &ContentsError{info.StorePath, fmt.Sprintf("the archive has the hash %s, it should have %s", got, info.NarHash), nil}
	}
	return nil
}

// archiveReader hashes an archive of bounded size while it is read.
type archiveReader struct {
	r       io.Reader
	left    int64 // bytes that may come
	digest  hash.Hash
	tooLong bool
}

var errTooLong = errors.New("the archive is longer than it should be")

func (a *archiveReader) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if a.left -= int64(n); a.left < 0 {
		a.tooLong = true
		return 0, errTooLong
	}
	a.digest.Write(p[:n])
	return n, err
}
