package nar

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// benchFiles is the number of files in benchTree.
const benchFiles = 2000

// benchTree makes a tree of the shape that store paths have: small files, most
// of them of a few KiB, twenty to a directory.
func benchTree(b *testing.B) string {
	b.Helper()
	root := filepath.Join(b.TempDir(), "tree")
	random := rand.New(rand.NewPCG(1, 2))
	contents := make([]byte, 64<<10)
	for i := range contents {
		contents[i] = byte(random.Uint32())
	}
	for i := range benchFiles {
		dir := fmt.Sprintf("%s/share/dir-%02d", root, i/20)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		size := 1 << (6 + random.IntN(11))
		if err := os.WriteFile(fmt.Sprintf("%s/file-%d.txt", dir, i), contents[:size-random.IntN(size/2)], 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return root
}

func report(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchFiles, "ns/file")
}

func BenchmarkDump(b *testing.B) {
	tree := benchTree(b)
	for b.Loop() {
		if err := Dump(io.Discard, tree); err != nil {
			b.Fatal(err)
		}
	}
	report(b)
}

func BenchmarkDumpListing(b *testing.B) {
	tree := benchTree(b)
	for b.Loop() {
		if _, err := DumpListing(io.Discard, tree); err != nil {
			b.Fatal(err)
		}
	}
	report(b)
}

func BenchmarkHash(b *testing.B) {
	tree := benchTree(b)
	var size int64
	for b.Loop() {
		var err error
		if _, size, err = Hash(b.Context(), tree); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(size)
	report(b)
}

func BenchmarkReader(b *testing.B) {
	var archive bytes.Buffer
	if err := Dump(&archive, benchTree(b)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		r := NewReader(bytes.NewReader(archive.Bytes()))
		for err := error(nil); err != io.EOF; { //nolint:errorlint // as readers return it
			if _, err = r.Next(); err != nil && err != io.EOF { //nolint:errorlint // likewise
				b.Fatal(err)
			}
		}
	}
	report(b)
}

func BenchmarkUnpack(b *testing.B) {
	var archive bytes.Buffer
	if err := Dump(&archive, benchTree(b)); err != nil {
		b.Fatal(err)
	}
	dir, err := os.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer dir.Close()
	// Into new names, because ext4 takes its time to use inodes again that have
	// just become free.
	for i := 0; b.Loop(); i++ {
		if err := Unpack(b.Context(), bytes.NewReader(archive.Bytes()), dir, fmt.Sprint("out", i)); err != nil {
			b.Fatal(err)
		}
	}
	report(b)
	makeWritable(b, dir.Name())
}
