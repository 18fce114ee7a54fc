package prebuild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"vm-prebuild/nar/binarycache"
	"vm-prebuild/nar/bundle"
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
	// Bundle, if not empty, is a bundle to write instead; "-" is Stdout. A file that
	// exists is replaced; a device or a pipe is written to.
	Bundle string
	Stdout io.Writer

	Compression compress.Method // None, Zstd or XZ; empty means Zstd, which a bundle always has
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

// Export brings a closure into a binary cache or a bundle.
func Export(ctx context.Context, o ExportOptions) (ExportSummary, error) {
	start := time.Now()
	infos := make([]*narinfo.NarInfo, len(o.Closure.Paths))
	for i, info := range o.Closure.Paths {
		infos[i] = toNarInfo(info)
	}
	export := o.toCache
	if o.Bundle != "" {
		export = o.toBundle
	}
	summary, err := export(ctx, infos)
	if err != nil {
		return ExportSummary{}, err
	}
	summary.DryRun, summary.Total = o.DryRun, time.Since(start)
	return summary, nil
}

// file is where the files of a store path are.
func (o ExportOptions) file(storePath string) string { return filepath.Join(o.From, storePath) }

func (o ExportOptions) toCache(ctx context.Context, infos []*narinfo.NarInfo) (ExportSummary, error) {
	if o.Compression == "" {
		o.Compression = compress.Zstd
	}
	w, err := binarycache.Write(ctx, binarycache.WriteOptions{
		Location: o.To, Paths: infos, File: o.file,
		Compression: o.Compression, Level: o.Level, Keys: o.Keys, Listings: o.Listings,
		Jobs: o.Jobs, DryRun: o.DryRun, Progress: o.Progress,
	})
	return ExportSummary{Paths: w.Paths, Present: w.Present, Written: w.Written, NarBytes: w.NarBytes, FileBytes: w.FileBytes}, err
}

func (o ExportOptions) toBundle(ctx context.Context, infos []*narinfo.NarInfo) (ExportSummary, error) {
	s := ExportSummary{Paths: len(infos), Written: len(infos)}
	for _, info := range infos {
		s.NarBytes += info.NarSize
	}
	if o.DryRun {
		return s, nil
	}
	write := func(w io.Writer) (err error) {
		s.FileBytes, err = bundle.Write(ctx, w, bundle.Options{
			Paths: infos, File: o.file, Level: o.Level, Keys: o.Keys, Jobs: o.Jobs, Progress: o.Progress,
		})
		return err
	}
	if o.Bundle == "-" {
		return s, write(o.Stdout)
	}
	return s, replaceFile(o.Bundle, write)
}

// replaceFile writes a file that is there only when it is complete. What is no
// file, such as a device or a pipe, is written to as it is.
func replaceFile(path string, write func(io.Writer) error) error {
	info, err := os.Stat(path) // where symlinks lead
	switch {
	case err == nil && info.IsDir():
		return &SelectionError{path + ": is a directory"}
	case err == nil && !info.Mode().IsRegular():
		return writeThrough(path, write)
	case err == nil:
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return fmt.Errorf("write bundle: %w", err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("write bundle: %w", err)
	}
	if _, err := os.Lstat(path); info == nil && err == nil {
		return &SelectionError{path + ": is a symlink that leads nowhere"}
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	err = write(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync() // lest a crash leaves the name with nothing behind it
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// writeThrough writes to something that is no file.
func writeThrough(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return errors.Join(write(f), f.Close())
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
				// It may be a secret one, which must not get into a log.
				name, _, _ := strings.Cut(word, ":")
				return nil, &KeyError{fmt.Sprintf("the value for %q is not a public key\nhint: give the key itself, NAME:BASE64 as in Nix's trusted-public-keys; neither a secret key nor a file", name)}
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
