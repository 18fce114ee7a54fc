package compress

import (
	"bufio"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
)

// These bound the memory that a stream can make its decompression take: zstd
// needs no more than 8 MiB up to level 19, nor any level of xz more than 64 MiB.
const (
	maxWindow     = 16 << 20 // of zstd
	maxDictionary = 64 << 20 // of xz
)

// errWindow says why a stream is refused.
var errWindow = fmt.Errorf("%w: more than %d MiB\nhint: it was compressed with a level of 20 or more, or with --long; compress it with 19 or less", zstd.ErrWindowSizeExceeded, maxWindow>>20)

// readBuffer is how much is read at once of a compressed stream.
const readBuffer = 64 << 10

// Decompressor decompresses streams, and keeps what that takes for the next
// one. The zero value is ready to use, by several goroutines at once.
type Decompressor struct {
	zstd    sync.Pool // of *zstd.Decoder
	buffers sync.Pool // of *bufio.Reader
}

// Error says why a stream cannot be decompressed: what is wrong with it, or why
// it cannot be read.
type Error struct {
	Method Method
	Err    error
}

func (e *Error) Error() string { return fmt.Sprintf("decompress %s: %v", e.Method, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// NewReader returns what r is when decompressed. Whoever has read enough of it
// must call Close, which does not close r. Errors, also those of reading r, are
// of type *[Error]. The method "" is bzip2, as in a narinfo.
func (d *Decompressor) NewReader(r io.Reader, method Method) (io.ReadCloser, error) {
	if method == None {
		return io.NopCloser(r), nil
	}
	buffered, _ := d.buffers.Get().(*bufio.Reader)
	if buffered == nil {
		buffered = bufio.NewReaderSize(r, readBuffer)
	} else {
		buffered.Reset(r)
	}
	stream, err := d.open(buffered, method)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) {
		err = errWindow
	}
	if err != nil {
		return nil, &Error{method, err}
	}
	return &reader{Reader: stream, method: method, pools: d, buffered: buffered}, nil
}

func (d *Decompressor) open(r *bufio.Reader, method Method) (io.Reader, error) {
	switch method {
	case Zstd:
		if decoder, ok := d.zstd.Get().(*zstd.Decoder); ok {
			return decoder, decoder.Reset(r)
		}
		// One goroutine for each stream: there are as many streams as CPUs.
		return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	case XZ:
		return xz.NewReader(r, maxDictionary)
	case Bzip2, "":
		return bzip2.NewReader(r), nil
	case Gzip:
		return gzip.NewReader(r)
	default:
		return nil, fmt.Errorf("compression %q is not supported", method)
	}
}

// reader is one stream.
type reader struct {
	io.Reader
	method   Method
	pools    *Decompressor
	buffered *bufio.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) {
		err = errWindow
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = &Error{r.method, err}
	}
	return n, err
}

// Close keeps what the stream took for others.
func (r *reader) Close() error {
	if r.Reader == nil {
		return nil
	}
	if decoder, ok := r.Reader.(*zstd.Decoder); ok {
		if err := decoder.Reset(nil); err == nil {
			r.pools.zstd.Put(decoder)
		}
	}
	r.buffered.Reset(nil)
	r.pools.buffers.Put(r.buffered)
	r.Reader, r.buffered = nil, nil
	return nil
}
