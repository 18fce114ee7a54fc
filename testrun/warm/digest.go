package warm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// blockBytes is the unit in which files are looked at.
const blockBytes = 64 << 10

// digestOf is the digest of the file of that name.
func digestOf(ctx context.Context, path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return digest(ctx, f)
}

// digest is a SHA-256 of a file that costs nothing for holes and is the same
// whether zeros are holes or not: of the offset (8 bytes, little-endian) and the
// content of each block of 64 KiB that is not all zeros, and of the file's size.
func digest(ctx context.Context, f *os.File) (string, error) {
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	size := info.Size()
	sum := sha256.New()
	var number [8]byte
	block, zeros := make([]byte, blockBytes), make([]byte, blockBytes)
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO): // only a hole is left
			data = size
		case errors.Is(err, unix.EINVAL): // the file system knows no holes
			data = at
		case err != nil:
			return "", err
		}
		at = max(at, data/blockBytes*blockBytes)
		if at >= size {
			break
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		n, err := f.ReadAt(block, at)
		if err != nil && (n == 0 || !errors.Is(err, io.EOF)) {
			return "", err
		}
		if !bytes.Equal(block[:n], zeros[:n]) {
			binary.LittleEndian.PutUint64(number[:], uint64(at))
			sum.Write(number[:])
			sum.Write(block[:n])
		}
		at += int64(n)
	}
	binary.LittleEndian.PutUint64(number[:], uint64(size))
	sum.Write(number[:])
	return hex.EncodeToString(sum.Sum(nil)), nil
}
