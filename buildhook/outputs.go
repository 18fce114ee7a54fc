package buildhook

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"vm-prebuild/buildhook/protocol"
	"vm-prebuild/nar"
	"vm-prebuild/nar/narinfo"
	"vm-prebuild/nar/storepath"
	"vm-prebuild/storedb"
	"vm-prebuild/storedb/mountns"
)

// collect brings the outputs of a build that has succeeded into the store that asks.
func (b *builder) collect(ctx context.Context, d decision, job protocol.Job, w *mountns.Written) error {
	select {
	case result := <-b.result:
		if !result.OK() {
			return nil
		}
	default:
		return nil // there is an error about that
	}
	wanted := make([]string, len(job.Outputs))
	for i, name := range job.Outputs {
		wanted[i] = d.derivation.Outputs[name].Path
	}
	built, err := storedb.QueryClosure(ctx, w.Root, wanted)
	if err != nil {
		return err
	}
	keys, err := b.keys()
	if err != nil {
		return err
	}
	outputs := &storedb.Closure{Name: w.Root}
	for _, info := range built.Paths {
		if !slices.Contains(wanted, info.Path) {
			continue
		}
		info.Deriver, info.Ultimate = d.try.Drv, true
		if info.Sigs, err = sign(info, keys); err != nil {
			return err
		}
		outputs.Paths = append(outputs.Paths, info)
	}
	return b.place(ctx, d, outputs, &copies{w, candidates(built)})
}

// place makes outputs valid in the store that asks.
func (h *hook) place(ctx context.Context, d decision, outputs *storedb.Closure, files storedb.Files) error {
	_, err := storedb.Import(ctx, storedb.Options{
		Closure: outputs, Store: d.root, Files: files, Locked: true,
		Progress: func(p storedb.Progress) {
			if p.Waiting != "" {
				h.say(protocol.LevelInfo, "%s waits for %s", d.try.Drv, p.Waiting)
			}
		},
	})
	return err
}

// keys are those that sign what is built: Nix's own for what it builds, and ours.
func (h *hook) keys() ([]signature.SecretKey, error) {
	keys := slices.Clone(h.Keys)
	for _, file := range strings.Fields(h.settings["secret-key-files"]) {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read a secret key: %w", err)
		}
		key, err := signature.LoadSecretKey(strings.TrimSpace(string(text)))
		if err != nil {
			return nil, fmt.Errorf("read the secret key in %s: %w", file, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func sign(info storedb.PathInfo, keys []signature.SecretKey) ([]string, error) {
	n := &narinfo.NarInfo{StorePath: info.Path, NarHash: narinfo.Hash(info.NarHash), NarSize: info.NarSize, References: info.References}
	for _, key := range keys {
		if err := n.Sign(key); err != nil {
			return nil, fmt.Errorf("sign %s: %w", info.Path, err)
		}
	}
	return n.Sigs, nil
}

// copies are [storedb.Files] that a build has written. They are compared with what
// Nix has registered, contents and references, while they are copied.
type copies struct {
	written *mountns.Written
	scanner *nar.ReferenceScanner // for all that they may refer to
}

// candidates is a scanner for the paths of a closure.
func candidates(c *storedb.Closure) *nar.ReferenceScanner {
	parts := make([]string, len(c.Paths))
	for i, info := range c.Paths {
		parts[i] = hashPart(info.Path)
	}
	return nar.NewReferenceScanner(parts)
}

func hashPart(path string) string { return filepath.Base(path)[:storepath.HashPartLen] }

// Place copies one path.
func (c *copies) Place(ctx context.Context, info storedb.PathInfo, dir *os.File, name string) error {
	hash, scanner := sha256.New(), c.scanner.Another()
	archive, w := io.Pipe()
	go func() {
		w.CloseWithError(nar.Dump(io.MultiWriter(w, hash, scanner), c.written.Path(info.Path)))
	}()
	err := nar.Unpack(ctx, archive, dir, name)
	archive.CloseWithError(io.ErrClosedPipe)
	if err != nil {
		return err
	}
	if got := storedb.Hash(hash.Sum(nil)); got != info.NarHash {
		return &storedb.VerifyError{Path: info.Path, WantHash: info.NarHash, GotHash: got, WantBytes: info.NarSize, GotBytes: info.NarSize}
	}
	found := scanner.Found()
	for _, path := range info.References {
		if !slices.Contains(found, hashPart(path)) {
			return fmt.Errorf("%s is registered to refer to %s, but does not", info.Path, path)
		}
	}
	if len(found) != len(info.References) {
		return fmt.Errorf("%s refers to %d store paths, but %d are registered", info.Path, len(found), len(info.References))
	}
	return nil
}
