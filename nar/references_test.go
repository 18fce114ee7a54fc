package nar

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nix-community/go-nix/pkg/nixbase32"
)

const (
	partA = "w8jf89965q7n4rzapcsys4mxk2mphh1y"
	partB = "00000000000000000000000000000000"
	partC = "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz0"
)

func TestReferenceScanner(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"nothing", "", nil},
		{"alone", partA, []string{partA}},
		{"in a store path", "/nix/store/" + partA + "-name", []string{partA}},
		{"after a word", "lib" + partA, []string{partA}},
		{"within a word", "a" + partA + "x", []string{partA}},
		{"one after the other", partA + partC, []string{partA, partC}},
		{"at the end of a run", strings.Repeat("z", 100) + "0", []string{partC}},
		{"in a long run", strings.Repeat("0", 1000), []string{partB}},
		{"overlapping", strings.Repeat("z", 31) + strings.Repeat("0", 32), []string{partB, partC}},
		{"all", partC + "-" + partB + "\x00" + partA, []string{partB, partA, partC}},
		{"one character missing", partA[1:] + "-" + partA[:31], nil},
		{"one character wrong", partA[:31] + "e", nil},
		{"in capitals", strings.ToUpper(partA), nil},
		{"with a break", partA[:16] + "\n" + partA[16:], nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, size := range []int{1, 2, 3, 7, 16, 31, 32, 33, 1000} {
				s := NewReferenceScanner([]string{partA, partB, partC, "", "short", strings.Repeat("e", 32)})
				for piece := range slices.Chunk([]byte(test.text), size) {
					if n, err := s.Write(piece); n != len(piece) || err != nil {
						t.Fatalf("Write of %d bytes = %d, %v", len(piece), n, err)
					}
				}
				if diff := cmp.Diff(test.want, s.Found()); diff != "" {
					t.Errorf("in pieces of %d bytes:\n%s", size, diff)
				}
			}
		})
	}
}

func TestAnotherReferenceScanner(t *testing.T) {
	first := NewReferenceScanner([]string{partA, partB})
	_, _ = first.Write([]byte(partA + partB[:31]))
	second := first.Another()
	_, _ = second.Write([]byte("0" + partB))
	if got := first.Found(); !slices.Equal(got, []string{partA}) {
		t.Errorf("the first has found %v", got)
	}
	if got := second.Found(); !slices.Equal(got, []string{partB}) {
		t.Errorf("the second has found %v", got)
	}
}

// The scanner finds what a plain search for each hash part finds, however the
// text is cut.
func FuzzReferenceScanner(f *testing.F) {
	f.Add([]byte("/nix/store/"+partA+"-name and lib"+partB), uint64(1))
	f.Add([]byte(strings.Repeat("z", 70)+"0"), uint64(2))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 0))
		text := slices.Clone(data)
		// Text of nothing but nix32, now and then, and hash parts out of it.
		if random.IntN(2) == 0 {
			for i := range text {
				if random.IntN(200) > 0 {
					text[i] = nixbase32.Alphabet[text[i]%32]
				}
			}
		}
		parts := []string{partA, partB, partC}
		for range 5 {
			if at := random.IntN(len(text) + 1); at+32 <= len(text) && nixbase32.ValidateString(string(text[at:at+32])) == nil {
				parts = append(parts, string(text[at:at+32]))
			}
		}
		slices.Sort(parts)
		parts = slices.Compact(parts)
		var want []string
		for _, part := range parts {
			if strings.Contains(string(text), part) {
				want = append(want, part)
			}
		}
		s := NewReferenceScanner(parts)
		for len(text) > 0 {
			n := 1 + random.IntN(min(len(text), 50))
			_, _ = s.Write(text[:n])
			text = text[n:]
		}
		if diff := cmp.Diff(want, s.Found()); diff != "" {
			t.Error(diff)
		}
	})
}

func BenchmarkReferenceScanner(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 2))
	binary := make([]byte, 1<<20)
	for i := range binary {
		binary[i] = byte(random.Uint32())
	}
	text := []byte(strings.Repeat("The quick brown fox jumps over the lazy dog; fi\n", 1<<20/48))
	run := make([]byte, 1<<20)
	for i := range run {
		run[i] = nixbase32.Alphabet[random.IntN(32)]
	}
	var parts []string
	for range 500 {
		part := make([]byte, 20)
		for i := range part {
			part[i] = byte(random.Uint32())
		}
		parts = append(parts, nixbase32.EncodeToString(part))
	}
	for name, data := range map[string][]byte{"binary": binary, "text": text, "nix32": run} {
		b.Run(name, func(b *testing.B) {
			s := NewReferenceScanner(parts)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				_, _ = s.Write(data)
			}
		})
	}
}
