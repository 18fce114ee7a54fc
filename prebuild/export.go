package prebuild

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"vm-prebuild/nar/binarycache"
	"vm-prebuild/nar/compress"
	"vm-prebuild/nar/narinfo"
	"vm-prebuild/storedb"
)

// ExportOptions says what to export, from which store, and where to.
type ExportOptions struct {
	Closure *storedb.Closure
	From    string // root of the store that has the files; empty means /

	// To is a binary cache: a directory or a file URL.
	To string

	Compression compress.Method // None, Zstd or XZ; empty means Zstd
	Level       int             // of the compression; 0 is the usual one
	Listings    bool            // write listings into a cache
	Keys        []signature.SecretKey
	Jobs        int  // 0 or less means one for each CPU
	DryRun      bool // only find out what an export would do
	Progress    func(binarycache.Progress)
}

// ExportSummary is what an export did, or what it would do.
type ExportSummary struct {
	Paths     int           `json:"paths"`     // in the closure
	Present   int           `json:"present"`   // of these, in the cache before
	Written   int           `json:"written"`   // of these, new
	NarBytes  int64         `json:"narBytes"`  // sizes of the archives of the new ones
	FileBytes int64         `json:"fileBytes"` // what they take in the cache
	DryRun    bool          `json:"dryRun"`    // nothing was done
	Total     time.Duration `json:"totalNs"`   // how long it took, in nanoseconds
}

// Export brings a closure into a binary cache.
func Export(ctx context.Context, o ExportOptions) (ExportSummary, error) {
	start := time.Now()
	if o.Compression == "" {
		o.Compression = compress.Zstd
	}
	infos := make([]*narinfo.NarInfo, len(o.Closure.Paths))
	for i, info := range o.Closure.Paths {
		infos[i] = toNarInfo(info)
	}
	w, err := binarycache.Write(ctx, binarycache.WriteOptions{
		Location: o.To, Paths: infos, File: func(path string) string { return filepath.Join(o.From, path) },
		Compression: o.Compression, Level: o.Level, Keys: o.Keys, Listings: o.Listings,
		Jobs: o.Jobs, DryRun: o.DryRun, Progress: o.Progress,
	})
	if err != nil {
		return ExportSummary{}, err
	}
	return ExportSummary{
		Paths: w.Paths, Present: w.Present, Written: w.Written, NarBytes: w.NarBytes, FileBytes: w.FileBytes,
		DryRun: o.DryRun, Total: time.Since(start),
	}, nil
}

func toNarInfo(info storedb.PathInfo) *narinfo.NarInfo {
	return &narinfo.NarInfo{
		StorePath: info.Path, NarHash: narinfo.Hash(info.NarHash), NarSize: info.NarSize,
		References: info.References, Deriver: info.Deriver, Sigs: info.Sigs, CA: info.CA,
	}
}

func fromNarInfo(info *narinfo.NarInfo) storedb.PathInfo {
	return storedb.PathInfo{
		Path: info.StorePath, NarHash: storedb.Hash(info.NarHash), NarSize: info.NarSize,
		References: info.References, Deriver: info.Deriver, Sigs: info.Sigs, CA: info.CA,
	}
}

// maxKeyFile is more than any file with a key has, in bytes.
const maxKeyFile = 64 << 10

// ReadSecretKey reads a file made by nix-store --generate-binary-cache-key. Its
// errors never show what is in the file.
func ReadSecretKey(file string) (signature.SecretKey, error) {
	f, err := os.Open(file)
	if err != nil {
		return signature.SecretKey{}, &KeyError{fmt.Sprintf("read secret key: %v", err)}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return signature.SecretKey{}, fmt.Errorf("read secret key: %w", err)
	}
	key, err := signature.LoadSecretKey(strings.TrimSpace(string(text)))
	if err != nil {
		return signature.SecretKey{}, &KeyError{file + ": not a secret key: it has to be NAME:BASE64, as nix-store --generate-binary-cache-key writes it"}
	}
	return key, nil
}

// ParsePublicKeys reads public keys; each string holds some, with blanks between
// them as in nix.conf.
func ParsePublicKeys(lists []string) ([]signature.PublicKey, error) {
	var keys []signature.PublicKey
	for _, s := range lists {
		for _, word := range strings.Fields(s) {
			key, err := signature.ParsePublicKey(word)
			if err != nil {
				return nil, &KeyError{fmt.Sprintf("%q is not a public key: it has to be NAME:BASE64, as in Nix's trusted-public-keys", word)}
			}
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// KeyError says that a key cannot be used.
type KeyError struct{ Reason string }

func (e *KeyError) Error() string { return e.Reason }

// ExitCode is that of wrong usage or configuration.
func (e *KeyError) ExitCode() int { return 2 }
