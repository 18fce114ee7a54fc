package packed_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/warm/packed"
)

const frame = 4 << 20

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// file makes a file of that size with data at some places and holes elsewhere.
func file(t testing.TB, size int64, data map[int64][]byte) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	must(t, f.Truncate(size))
	for at, b := range data {
		_, err := f.WriteAt(b, at)
		must(t, err)
	}
	return f
}

func content(t testing.TB, f *os.File) []byte {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	must(t, err)
	return b
}

func blocks(t testing.TB, f *os.File) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Fstat(int(f.Fd()), &st))
	return st.Blocks * 512
}

func compress(t testing.TB, f *os.File) []byte {
	t.Helper()
	var out bytes.Buffer
	must(t, packed.Compress(t.Context(), &out, f, nil))
	return out.Bytes()
}

func decompress(t testing.TB, text []byte, size int64) (*os.File, error) {
	t.Helper()
	out := file(t, 0, nil)
	return out, packed.Decompress(t.Context(), out, file(t, 0, map[int64][]byte{0: text}), size)
}

// noise is what cannot be compressed.
func noise(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

var files = map[string]struct {
	size int64
	data map[int64][]byte
}{
	"empty":        {0, nil},
	"one byte":     {1, map[int64][]byte{0: {1}}},
	"a hole":       {3*frame + 5, nil},
	"one frame":    {frame, map[int64][]byte{frame - 1: {1}}},
	"over a frame": {2*frame + 1, map[int64][]byte{frame - 2: noise(5), 2 * frame: {7}}},
	"noise":        {frame + 4097, map[int64][]byte{0: noise(frame + 4097)}},
	"far":          {64 * frame, map[int64][]byte{40 * frame: noise(4096), 63*frame + 8192: {1}}},
}

// What is packed and unpacked is the same, has holes where it was zero, and is what
// everybody's zstd makes of it, too.
func TestRoundTrip(t *testing.T) {
	for name, test := range files {
		t.Run(name, func(t *testing.T) {
			f := file(t, test.size, test.data)
			text := compress(t, f)
			out, err := decompress(t, text, test.size)
			must(t, err)
			want := content(t, f)
			if !bytes.Equal(content(t, out), want) {
				t.Error("another file came out")
			}
			if blocks(t, out) > blocks(t, f) {
				t.Errorf("it takes %d bytes on the disk, and took %d", blocks(t, out), blocks(t, f))
			}
			cmd := exec.CommandContext(t.Context(), "zstd", "-dc")
			if cmd.Err != nil && os.Getenv("CI") == "" {
				t.Skip(cmd.Err)
			}
			cmd.Stdin = bytes.NewReader(text)
			if theirs, err := cmd.Output(); err != nil || !bytes.Equal(theirs, want) {
				t.Errorf("zstd makes %d bytes of it, %v", len(theirs), err)
			}
		})
	}
}

// The same content is the same packed: with other holes, and by other numbers of
// CPUs. Holes cost next to nothing.
func TestDeterministic(t *testing.T) {
	test := files["far"]
	first := compress(t, file(t, test.size, test.data))
	if len(first) > 64*450+2*4096 {
		t.Errorf("it has %d bytes", len(first))
	}
	full := file(t, 0, map[int64][]byte{0: content(t, file(t, test.size, test.data))})
	if !bytes.Equal(compress(t, full), first) {
		t.Error("holes make a difference")
	}
	for _, n := range []int{1, 7} {
		old := runtime.GOMAXPROCS(n)
		again := compress(t, full)
		runtime.GOMAXPROCS(old)
		if !bytes.Equal(again, first) {
			t.Errorf("%d CPUs make a difference", n)
		}
	}
}

// table is where the table of a packed file begins, which has n frames.
func table(text []byte, n int) int { return len(text) - 9 - 12*n }

func TestCorrupt(t *testing.T) {
	const size = 3*frame + 100
	good := compress(t, file(t, size, map[int64][]byte{0: noise(5000), 2 * frame: noise(300), size - 3: {1, 2, 3}}))
	put := func(b []byte, at int, v uint32) { binary.LittleEndian.PutUint32(b[at:], v) }
	get := func(b []byte, at int) int { return int(binary.LittleEndian.Uint32(b[at:])) }
	for name, change := range map[string]func(b []byte) ([]byte, int64){
		"empty":                func([]byte) ([]byte, int64) { return nil, size },
		"cut off":              func(b []byte) ([]byte, int64) { return b[:len(b)-1], size },
		"cut off in a frame":   func(b []byte) ([]byte, int64) { return b[:1000], size },
		"cut off at the start": func(b []byte) ([]byte, int64) { return b[1:], size },
		"longer":               func(b []byte) ([]byte, int64) { return append(b, 0), size },
		"smaller":              func(b []byte) ([]byte, int64) { return b, size - 1 },
		"fewer frames":         func(b []byte) ([]byte, int64) { return b, frame },
		"a lie about its size": func(b []byte) ([]byte, int64) { return b, 1 << 42 },
		"beyond all sizes":     func(b []byte) ([]byte, int64) { return b, 1 << 62 },
		"less than nothing":    func(b []byte) ([]byte, int64) { return b, -1 },
		"a flipped bit":        func(b []byte) ([]byte, int64) { b[2000] ^= 4; return b, size },
		"not zstd":             func(b []byte) ([]byte, int64) { b[0]++; return b, size },
		"a frame too long":     func(b []byte) ([]byte, int64) { put(b, table(b, 4), 1<<31); return b, size },
		"a frame too large":    func(b []byte) ([]byte, int64) { put(b, table(b, 4)+4, 1<<31); return b, size },
		"a frame too small":    func(b []byte) ([]byte, int64) { put(b, table(b, 4)+4, 1); return b, size },
		"more frames": func(b []byte) ([]byte, int64) {
			put(b, len(b)-9, 1<<31)
			return b, size
		},
		"no table": func(b []byte) ([]byte, int64) { put(b, table(b, 4)-8, 0); return b, size },
		"frames overlap": func(b []byte) ([]byte, int64) {
			at := table(b, 4)
			put(b, at, uint32(get(b, at)-1))
			put(b, at+12, uint32(get(b, at+12)+1))
			return b, size
		},
		// The last frame, which has 100 bytes, in the place of one that has more.
		"frames out of order": func(b []byte) ([]byte, int64) {
			at := table(b, 4)
			first, last := get(b, at), get(b, at+36)
			frames := b[:at-8]
			moved := append(bytes.Clone(frames[len(frames)-last:]), frames[first:len(frames)-last]...)
			copy(b, append(moved, frames[:first]...))
			put(b, at, uint32(last))
			put(b, at+36, uint32(first))
			return b, size
		},
	} {
		t.Run(name, func(t *testing.T) {
			text, size := change(bytes.Clone(good))
			_, err := decompress(t, text, size)
			var corrupt *packed.CorruptError
			if !errors.As(err, &corrupt) {
				t.Errorf("%v", err)
			}
			t.Log(err)
		})
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := file(t, 9*frame, nil)
	if err := packed.Compress(ctx, io.Discard, f, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := packed.Decompress(ctx, file(t, 0, nil), file(t, 0, map[int64][]byte{0: compress(t, f)}), 9*frame); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// FuzzDecompress unpacks anything: what is not refused has the size that it is to
// have, and takes no more of the disk.
func FuzzDecompress(f *testing.F) {
	for name, test := range files {
		if name != "noise" && name != "far" {
			f.Add(compress(f, file(f, test.size, test.data)), test.size)
		}
	}
	f.Add([]byte("\x5e\x2a\x4d\x18\x09\x00\x00\x00\x00\x00\x00\x00\x80\xb1\xea\x92\x8f"), int64(0))
	f.Fuzz(func(t *testing.T, text []byte, size int64) {
		out, err := decompress(t, text, min(size, 4*frame))
		if err != nil {
			return
		}
		if info, err := out.Stat(); err != nil || info.Size() != min(size, 4*frame) {
			t.Errorf("%v, %v", info, err)
		}
	})
}
