package bundle

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"golang.org/x/sync/errgroup"

	"vm-prebuild/nar/binarycache"
	"vm-prebuild/nar/compress"
	"vm-prebuild/nar/internal/nartest"
	"vm-prebuild/nar/narinfo"
)

func write(t testing.TB, s *nartest.Store, jobs int, keys ...signature.SecretKey) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := Write(t.Context(), &b, Options{Paths: s.Infos, File: s.File, Jobs: jobs, Keys: keys, Level: 1})
	if err != nil {
		t.Fatal(err)
	}
	if n != int64(b.Len()) {
		t.Errorf("a length of %d, and %d bytes", n, b.Len())
	}
	return b.Bytes()
}

func open(b []byte) (*File, error) { return Open(bytes.NewReader(b), int64(len(b)), "test") }

// unpackAll unpacks what a bundle has with several goroutines, as they come.
func unpackAll(t testing.TB, infos []*narinfo.NarInfo, unpack func(context.Context, *narinfo.NarInfo, *os.File, string) error) error {
	t.Helper()
	dir := nartest.OpenDir(t)
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(3)
	for _, info := range infos {
		group.Go(func() error {
			name := filepath.Base(info.StorePath)
			if err := unpack(ctx, info, dir, name); err != nil {
				return err
			}
			nartest.Check(t, info, filepath.Join(dir.Name(), name))
			return nil
		})
	}
	return group.Wait()
}

func unpackStream(t testing.TB, r io.Reader) error {
	t.Helper()
	s, err := NewStream(t.Context(), r, "test")
	if err != nil {
		return err
	}
	if err := s.Expect(paths(s.Infos())); err != nil {
		return err
	}
	if err := unpackAll(t, s.Infos(), s.Unpack); err != nil {
		return err
	}
	return s.Close(t.Context())
}

func unpackFile(t testing.TB, b []byte) error {
	t.Helper()
	f, err := open(b)
	if err != nil {
		return err
	}
	return unpackAll(t, f.Infos(), f.Unpack)
}

func paths(infos []*narinfo.NarInfo) (paths []string) {
	for _, info := range infos {
		paths = append(paths, info.StorePath)
	}
	return paths
}

func TestRoundTrip(t *testing.T) {
	s := nartest.NewStore(t, 30, 20<<20)
	secret, public, err := signature.GenerateKeypair("test-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	b := write(t, s, 4, secret)
	reversed := *s
	reversed.Infos = slices.Clone(s.Infos)
	slices.Reverse(reversed.Infos)
	if !bytes.Equal(b, write(t, &reversed, 1, secret)) {
		t.Error("the same closure makes different bundles")
	}
	f, err := open(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Infos()) != len(s.Infos) {
		t.Fatalf("%d paths of %d", len(f.Infos()), len(s.Infos))
	}
	for _, info := range f.Infos() {
		if err := info.Verify(public); err != nil {
			t.Error(err)
		}
	}
	if err := unpackFile(t, b); err != nil {
		t.Error(err)
	}
	// One byte at a time, as from a slow pipe.
	if err := unpackStream(t, &slow{r: bytes.NewReader(b)}); err != nil {
		t.Error(err)
	}
}

// slow gives few bytes at a time.
type slow struct {
	r io.Reader
	n int
}

func (s *slow) Read(p []byte) (int, error) {
	s.n = (s.n*7 + 1) % 5000
	return s.r.Read(p[:min(len(p), s.n+1)])
}

// Some of the paths only; the others are passed over.
func TestStreamExpectsFew(t *testing.T) {
	s := nartest.NewStore(t, 20, 3<<20)
	b := write(t, s, 2)
	for _, want := range [][]int{{0}, {5}, {3, 4, 17}, {19}} {
		stream, err := NewStream(t.Context(), bytes.NewReader(b), "test")
		if err != nil {
			t.Fatal(err)
		}
		var infos []*narinfo.NarInfo
		for _, i := range want {
			infos = append(infos, stream.Infos()[i])
		}
		if err := stream.Expect(paths(infos)); err != nil {
			t.Fatal(err)
		}
		if err := unpackAll(t, infos, stream.Unpack); err != nil {
			t.Errorf("%v: %v", want, err)
		}
		if err := stream.Unpack(t.Context(), stream.Infos()[1], nartest.OpenDir(t), "x"); err == nil {
			t.Error("a path that is not expected: no error")
		}
		if err := stream.Expect([]string{infos[0].StorePath, infos[0].StorePath}); err == nil {
			t.Error("the same path twice: no error")
		}
	}
}

// Wherever a bundle is cut off or changed, its reader says so.
func TestDamaged(t *testing.T) {
	s := nartest.NewStore(t, 3, 2000)
	b := write(t, s, 1)
	check := func(what string, i int, damaged []byte) {
		t.Helper()
		for kind, err := range map[string]error{"file": unpackFile(t, damaged), "stream": unpackStream(t, bytes.NewReader(damaged))} {
			if err == nil {
				t.Fatalf("%s at %d of %d, %s: no error", what, i, len(b), kind)
			}
			coder, ok := errors.AsType[interface {
				error
				ExitCode() int
			}](err)
			if !ok || coder.ExitCode() != 1 && coder.ExitCode() != 2 {
				t.Fatalf("%s at %d of %d, %s: %v has no exit code of bad input", what, i, len(b), kind, err)
			}
		}
	}
	for i := 0; i < len(b); i += 1 + len(b)/100 {
		check("cut off", i, b[:i])
		changed := bytes.Clone(b)
		changed[i] ^= 0x41
		check("changed", i, changed)
	}
	for i := len(b) - 150; i < len(b); i += 7 {
		check("cut off", i, b[:i])
		changed := bytes.Clone(b)
		changed[i] ^= 0x41
		check("changed", i, changed)
	}
	check("longer", len(b), append(bytes.Clone(b), 0))
}

// Wherever a pipe brings no more, the end of the context ends the wait.
func TestStalled(t *testing.T) {
	b := write(t, nartest.NewStore(t, 3, 3<<20), 1)
	ended := errors.New("ended")
	for _, n := range []int{0, len(magic), 500, len(b) / 2, len(b) - 100, len(b)} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = w.Write(b[:n]) }()
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error)
		dir := nartest.OpenDir(t)
		go func() {
			done <- func() error {
				s, err := NewStream(ctx, r, "test")
				if err != nil {
					return err
				}
				if err := s.Expect(paths(s.Infos())); err != nil {
					return err
				}
				for _, info := range s.Infos() {
					if err := s.Unpack(ctx, info, dir, filepath.Base(info.StorePath)); err != nil {
						return err
					}
				}
				return s.Close(ctx)
			}()
		}()
		time.AfterFunc(50*time.Millisecond, func() { cancel(ended) })
		select {
		case err := <-done:
			if !errors.Is(err, ended) {
				t.Errorf("after %d bytes: %v", n, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("after %d bytes: it still waits", n)
		}
		if err := errors.Join(w.Close(), r.Close()); err != nil {
			t.Error(err)
		}
	}
}

func TestTruncatedMessage(t *testing.T) {
	b := write(t, nartest.NewStore(t, 3, 2000), 1)
	_, err := open(b[:len(b)-10])
	if err == nil || !strings.HasSuffix(err.Error(), "the bundle does not end in a trailer: it has been cut off") {
		t.Errorf("file: %v", err)
	}
	if err := unpackStream(t, bytes.NewReader(b[:len(b)-200])); err == nil || !strings.HasSuffix(err.Error(), "it has been cut off") {
		t.Errorf("stream: %v", err)
	}
}

func TestWriteErrors(t *testing.T) {
	s := nartest.NewStore(t, 5, 3<<20)
	options := Options{Paths: s.Infos, File: s.File, Jobs: 2}

	missing := options
	missing.Paths = s.Infos[1:]
	if _, err := Write(t.Context(), io.Discard, missing); err == nil || !strings.Contains(err.Error(), "which is not given") {
		t.Errorf("a reference that is missing: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Write(ctx, io.Discard, options); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context's end: %v", err)
	}
	for _, i := range []int{0, 3} { // a large path, and a small one
		if err := os.Chmod(filepath.Join(s.File(s.Infos[i].StorePath)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(s.File(s.Infos[i].StorePath)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.File(s.Infos[i].StorePath), []byte("changed"), 0o444); err != nil {
			t.Fatal(err)
		}
		_, err := Write(t.Context(), io.Discard, options)
		contents, ok := errors.AsType[*binarycache.ContentsError](err)
		if !ok || contents.StorePath != s.Infos[0].StorePath && contents.StorePath != s.Infos[i].StorePath {
			t.Errorf("path %d was modified: %v", i, err)
		}
	}
}

// FuzzBundle has bundles whose hashes and offsets are right, which only few
// of those that are found by chance have, unless raw.
func FuzzBundle(f *testing.F) {
	s := nartest.NewStore(f, 2, 200)
	b := write(f, s, 1)
	file, err := open(b)
	if err != nil {
		f.Fatal(err)
	}
	var text strings.Builder
	for _, info := range file.Infos() {
		text.WriteString(info.String() + "\n")
	}
	archives := b[file.begin:file.ends[len(file.ends)-1]]
	f.Add(text.String(), archives, uint(file.ends[0]-file.begin), false)
	f.Add(text.String(), archives[:len(archives)/2], uint(10), false)
	f.Add("", b, uint(0), true)
	f.Add("", b[:len(b)/2], uint(0), true)
	f.Fuzz(func(t *testing.T, text string, archives []byte, second uint, raw bool) {
		b := archives
		if !raw {
			b = assemble(t, text, archives, second)
		}
		fileErr := unpackFile(t, b)
		if streamErr := unpackStream(t, bytes.NewReader(b)); (fileErr == nil) != (streamErr == nil) {
			t.Errorf("as a file: %v\nas a stream: %v", fileErr, streamErr)
		}
	})
}

// assemble makes a bundle of its parts; the second archive is at the given
// offset from the first, and so on.
func assemble(t *testing.T, text string, archives []byte, second uint) []byte {
	t.Helper()
	compressor, err := compress.New(compress.Zstd, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := &writer{w: &b, compressor: compressor}
	digest, err := w.writeText(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	for i := range strings.Count(text, "\n\n") {
		w.offsets = append(w.offsets, w.n+int64(i)*int64(second))
	}
	if _, err := w.Write(archives); err != nil {
		t.Fatal(err)
	}
	if err := w.writeIndex(digest); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
