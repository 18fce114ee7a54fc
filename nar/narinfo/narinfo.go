// Package narinfo reads, writes, signs and verifies narinfo files, in which a
// binary cache describes its store paths, one file each. Parse and
// [NarInfo.String] are the entry points.
//
// The format is that of Nix (libstore/nar-info.cc): lines of `Key: value`. What
// is signed is the fingerprint (libstore/path-info.cc): store path, hash and
// size of its archive, and references.
package narinfo

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixbase32"

	"vm-prebuild/nar/storepath"
)

// Hash is a SHA-256 digest.
type Hash [sha256.Size]byte

// String is the hash as Nix writes it.
func (h Hash) String() string { return "sha256:" + nixbase32.EncodeToString(h[:]) }

// NarInfo describes a store path and the file of a cache that holds its archive.
type NarInfo struct {
	StorePath string

	URL         string // of the file, relative to the cache
	Compression string // of the file; "none" if it is the archive itself
	FileHash    *Hash  // of the file; nil if not known
	FileSize    int64  // bytes of the file; 0 if not known

	NarHash    Hash     // of the archive
	NarSize    int64    // bytes of the archive, at least 1
	References []string // store paths, sorted, each once
	Deriver    string   // the store path of a derivation; empty if not known
	Sigs       []string // NAME:BASE64, sorted, each once
	CA         string   // content address; empty if there is none
}

// String is the file as Nix writes it.
func (n *NarInfo) String() string {
	var b strings.Builder
	line := func(key, value string) { b.WriteString(key + ": " + value + "\n") }
	line("StorePath", n.StorePath)
	line("URL", n.URL)
	line("Compression", n.Compression)
	if n.FileHash != nil {
		line("FileHash", n.FileHash.String())
	}
	if n.FileSize > 0 {
		line("FileSize", fmt.Sprint(n.FileSize))
	}
	line("NarHash", n.NarHash.String())
	line("NarSize", fmt.Sprint(n.NarSize))
	references := make([]string, len(n.References))
	for i, reference := range n.References {
		references[i] = baseName(reference)
	}
	line("References", strings.Join(references, " "))
	if n.Deriver != "" {
		line("Deriver", baseName(n.Deriver))
	}
	for _, sig := range n.Sigs {
		line("Sig", sig)
	}
	if n.CA != "" {
		line("CA", n.CA)
	}
	return b.String()
}

// HashPart is the part of the store path's name that the cache knows it by: the
// narinfo is to be found as HASHPART.narinfo.
func (n *NarInfo) HashPart() string { return baseName(n.StorePath)[:storepath.HashPartLen] }

func baseName(path string) string { return strings.TrimPrefix(path, storepath.Dir+"/") }
