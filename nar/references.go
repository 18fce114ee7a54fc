package nar

import (
	"maps"
	"slices"

	"github.com/nix-community/go-nix/pkg/nixbase32"
)

// hashPartLen is the number of nix32 characters that the name of a store path
// begins with.
const hashPartLen = 32

// ReferenceScanner finds out which store paths something refers to. It is a
// writer, usually of archives, and looks for the hash parts of store paths in
// what is written to it. Like Nix it finds them wherever they begin, also in the
// middle of a word, and across writes.
type ReferenceScanner struct {
	wanted *hashParts
	found  map[string]bool
	tail   []byte // what was written last, if it may be the beginning of a hash part
}

// hashParts are those that are looked for. They are not changed.
type hashParts struct {
	all map[string]bool
	// Which three characters a hash part begins with, so that few of the places
	// where there could be one are looked up in the map.
	begins [1 << 15 / 64]uint64
	digits [256]byte // the value of each nix32 character, noDigit for others
}

const noDigit = 32

// NewReferenceScanner returns a scanner for hash parts, which are the first 32
// characters of store paths' names. What is no hash part is never found.
func NewReferenceScanner(parts []string) *ReferenceScanner {
	h := &hashParts{all: make(map[string]bool, len(parts))}
	for i := range h.digits {
		h.digits[i] = noDigit
	}
	for i, c := range []byte(nixbase32.Alphabet) {
		h.digits[c] = byte(i)
	}
	for _, part := range parts {
		if len(part) == hashPartLen && nixbase32.ValidateString(part) == nil {
			h.all[part] = true
			b := h.begin([]byte(part))
			h.begins[b/64] |= 1 << (b % 64)
		}
	}
	return h.scanner()
}

// Another returns a scanner for the same hash parts that has found nothing. It
// costs little, and both can be used at once.
func (s *ReferenceScanner) Another() *ReferenceScanner { return s.wanted.scanner() }

func (h *hashParts) scanner() *ReferenceScanner {
	return &ReferenceScanner{wanted: h, found: map[string]bool{}, tail: make([]byte, 0, 2*(hashPartLen-1))}
}

// Found returns the hash parts that have been found so far, sorted.
func (s *ReferenceScanner) Found() []string { return slices.Sorted(maps.Keys(s.found)) }

// Write scans p. It never fails.
func (s *ReferenceScanner) Write(p []byte) (int, error) {
	// What begins before p ends within its first bytes.
	s.tail = append(s.tail, p[:min(len(p), hashPartLen-1)]...)
	s.scan(s.tail)
	s.scan(p)
	if len(p) >= hashPartLen {
		s.tail = append(s.tail[:0], p[len(p)-(hashPartLen-1):]...)
	} else if n := len(s.tail) - (hashPartLen - 1); n > 0 {
		s.tail = slices.Delete(s.tail, 0, n)
	}
	return len(p), nil
}

// scan looks for hash parts that lie in p as a whole. The characters at every
// place are looked at from the right, so that one which is not nix32 rules out
// all the places to its left; none is looked at twice.
func (s *ReferenceScanner) scan(p []byte) {
	wanted := s.wanted
	known := 0 // from start up to here all are nix32
	for start := 0; start+hashPartLen <= len(p); {
		end := start + hashPartLen
		i := end - 1
		for i >= known && wanted.digits[p[i]] != noDigit {
			i--
		}
		if i >= known {
			start, known = i+1, end
			continue
		}
		if b := wanted.begin(p[start:]); wanted.begins[b/64]&(1<<(b%64)) != 0 && wanted.all[string(p[start:end])] {
			if !s.found[string(p[start:end])] {
				s.found[string(p[start:end])] = true
			}
		}
		start, known = start+1, end
	}
}

// begin is a number for the first three characters of p, which are nix32.
func (h *hashParts) begin(p []byte) uint {
	return uint(h.digits[p[0]])<<10 | uint(h.digits[p[1]])<<5 | uint(h.digits[p[2]])
}
