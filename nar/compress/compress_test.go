package compress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

// text is n bytes that compress well and never repeat exactly.
func text(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%08x the quick brown fox\n", i*2654435761)
	}
	return b.Bytes()[:n]
}

func random(n int) []byte {
	b := make([]byte, n)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(b)
	return b
}

// tool returns the program that reads what a method writes; CI must have it.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return path
}

func newCompressor(t *testing.T, method Method, level, jobs int) *Compressor {
	t.Helper()
	if method == XZ {
		tool(t, "xz")
	}
	c, err := New(method, level, jobs)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// compress writes data in uneven pieces.
func compress(c *Compressor, data []byte, size int64) ([]byte, error) {
	var out bytes.Buffer
	w := c.NewWriter(context.Background(), &out, size)
	for piece := 1; len(data) > 0; piece = piece*3 + 1 {
		n := min(piece, len(data))
		if _, err := w.Write(data[:n]); err != nil {
			return nil, errors.Join(err, w.Close())
		}
		data = data[n:]
	}
	err := w.Close()
	return out.Bytes(), err
}

func TestRoundTrip(t *testing.T) {
	inputs := map[string][]byte{
		"empty":       {},
		"byte":        {1},
		"small":       text(smallFrame),
		"small+1":     text(smallFrame + 1),
		"frame":       text(frameSize),
		"three":       append(text(2*frameSize), random(1000)...),
		"random":      random(smallFrame / 2),
		"manyRandoms": random(2*frameSize + 1),
	}
	programs := map[Method]string{Zstd: "zstd", XZ: "xz"}
	for _, method := range []Method{None, Zstd, XZ} {
		t.Run(string(method), func(t *testing.T) {
			c := newCompressor(t, method, map[Method]int{XZ: 1}[method], 3)
			alone := newCompressor(t, method, map[Method]int{XZ: 1}[method], 1)
			var d Decompressor
			for name, data := range inputs {
				if method == XZ && len(data) > smallFrame && name != "three" {
					continue // it is slow
				}
				out, err := compress(c, data, int64(len(data)))
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				again, err := compress(alone, data, 0)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if !bytes.Equal(out, again) {
					t.Errorf("%s: the number of jobs and the size that is announced change what is written", name)
				}
				if len(data) == 0 {
					continue
				}
				r, err := d.NewReader(bytes.NewReader(out), method)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				got, err := io.ReadAll(r)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s: read %d bytes of %d, %v", name, len(got), len(data), err)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
				if program := programs[method]; program != "" {
					cmd := exec.Command(tool(t, program), "-dc")
					cmd.Stdin = bytes.NewReader(out)
					if got, err := cmd.Output(); err != nil || !bytes.Equal(got, data) {
						t.Errorf("%s: %s reads %d bytes of %d, %v", name, program, len(got), len(data), err)
					}
				}
			}
		})
	}
}

// Many streams, long and short, share few buffers.
func TestManyStreams(t *testing.T) {
	for jobs := range 3 {
		manyStreams(t, newCompressor(t, Zstd, 1, jobs+1))
	}
}

func manyStreams(t *testing.T, c *Compressor) {
	t.Helper()
	long, short := text(3*frameSize+100), text(5000)
	var group errgroup.Group
	for i := range 12 {
		group.Go(func() error {
			data := short
			if i%4 == 0 {
				data = long
			}
			out, err := compress(c, data, int64(len(data)))
			if err != nil {
				return err
			}
			var d Decompressor
			r, err := d.NewReader(bytes.NewReader(out), Zstd)
			if err != nil {
				return err
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
				return fmt.Errorf("read %d bytes of %d, %w", len(got), len(data), err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

var errFull = errors.New("full")

// limited takes so many bytes and then fails.
type limited int

func (l *limited) Write(p []byte) (int, error) {
	if *l -= limited(len(p)); *l < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// Errors come out, and all buffers are there for the next stream.
func TestErrors(t *testing.T) {
	c := newCompressor(t, Zstd, 1, 2)
	data := random(4 * frameSize)
	for range 10 {
		l := limited(frameSize)
		w := c.NewWriter(t.Context(), &l, int64(len(data)))
		_, err := w.Write(data)
		if closeErr := w.Close(); !errors.Is(closeErr, errFull) {
			t.Fatalf("write: %v, close: %v", err, closeErr)
		}
		ctx, cancel := context.WithCancel(t.Context())
		w = c.NewWriter(ctx, io.Discard, int64(len(data)))
		if _, err := w.Write(data[:frameSize+1]); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := w.Close(); !errors.Is(err, context.Canceled) {
			t.Fatalf("after the context's end: %v", err)
		}
	}
	if out, err := compress(c, data, 0); err != nil || len(out) < len(data) {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}

func TestNew(t *testing.T) {
	for _, tt := range []struct {
		method Method
		level  int
	}{{"zip", 0}, {Bzip2, 0}, {Zstd, 20}, {Zstd, -1}, {None, 1}, {XZ, 10}} {
		if _, err := New(tt.method, tt.level, 1); err == nil {
			t.Errorf("%s, level %d: no error", tt.method, tt.level)
		}
	}
}

// What others write, and what nobody should.
func TestReader(t *testing.T) {
	data := text(100_000)
	for method, args := range map[Method][]string{
		Zstd: {"zstd", "-c", "-19"}, XZ: {"xz", "-c", "-9"}, Bzip2: {"bzip2", "-c"}, "": {"bzip2", "-c"}, Gzip: {"gzip", "-c"},
	} {
		t.Run(string(method), func(t *testing.T) {
			cmd := exec.Command(tool(t, args[0]), args[1:]...)
			cmd.Stdin = bytes.NewReader(data)
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			var d Decompressor
			read := func(in []byte) ([]byte, error) {
				r, err := d.NewReader(bytes.NewReader(in), method)
				if err != nil {
					return nil, err
				}
				got, err := io.ReadAll(r)
				return got, errors.Join(err, r.Close())
			}
			if got, err := read(out); err != nil || !bytes.Equal(got, data) {
				t.Errorf("read %d bytes of %d, %v", len(got), len(data), err)
			}
			if _, err := read(out[:len(out)/2]); err == nil {
				t.Error("half of it: no error")
			}
			if _, err := read([]byte("this is not it")); err == nil {
				t.Error("junk: no error")
			}
			if got, err := read(out); err != nil || !bytes.Equal(got, data) {
				t.Errorf("after errors: read %d bytes of %d, %v", len(got), len(data), err)
			}
		})
	}
	var d Decompressor
	if _, err := d.NewReader(bytes.NewReader(nil), "lz4"); err == nil {
		t.Error("lz4: no error")
	}
}

// Streams that ask for more memory than any level that is usual.
func TestReaderBoundsMemory(t *testing.T) {
	for method, args := range map[Method][]string{
		Zstd: {"zstd", "-c", "--ultra", "-20"},
		XZ:   {"xz", "-c", "--lzma2=preset=1,dict=100MiB"},
	} {
		t.Run(string(method), func(t *testing.T) {
			cmd := exec.Command(tool(t, args[0]), args[1:]...)
			cmd.Stdin = bytes.NewReader(text(1000))
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			var d Decompressor
			r, err := d.NewReader(bytes.NewReader(out), method)
			if err == nil {
				_, err = io.ReadAll(r)
			}
			if err == nil || method == Zstd && !strings.Contains(err.Error(), "level of 20 or more") {
				t.Errorf("got %v", err)
			}
		})
	}
}
