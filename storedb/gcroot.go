package storedb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

const gcRootsDir = stateDir + "/gcroots"

// checkGCRootName returns nil if name can be that of a directory of roots.
func checkGCRootName(name string) error {
	if !fs.ValidPath(name) || name == "." {
		return &InputError{File: name, Reason: "cannot be the name of a garbage collector root",
			Hint: "give a name, or several with slashes between them, without \"..\""}
	}
	return nil
}

// checkGCRoot makes sure that setGCRoot can make or replace the roots of that
// name: what it has not made itself stays.
func (d *destination) checkGCRoot(name string) error {
	if name == "" {
		return nil
	}
	dir := filepath.Join(d.root, gcRootsDir, name)
	for _, n := range append(slices.Collect(parents(name)), name) {
		file := filepath.Join(d.root, gcRootsDir, n)
		info, err := os.Lstat(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !info.IsDir() {
			err = &InputError{File: file, Reason: "not a directory", Hint: gcRootHint}
		}
		if err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read garbage collector roots: %w", err)
	}
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err == nil && target == StoreDir+"/"+entry.Name() {
			continue
		}
		return &InputError{File: filepath.Join(dir, entry.Name()), Reason: "not a root made by an import, so that it is not replaced", Hint: gcRootHint}
	}
	if len(entries) == 0 {
		return &InputError{File: dir, Reason: "an empty directory, not roots made by an import, so that it is not replaced", Hint: gcRootHint}
	}
	return nil
}

const gcRootHint = "give the roots another name"

// setGCRoot keeps the closure from the garbage collector: below gcroots, name
// becomes a directory of links to those of its paths that no other refers to.
// Roots of that name that an earlier import has made are replaced in one step.
func (d *destination) setGCRoot(ctx context.Context, name string, c *Closure) error {
	if name == "" {
		return nil
	}
	top := c.topPaths()
	if err := d.replaceGCRoot(name, top); err != nil {
		return fmt.Errorf("make garbage collector roots: %w", err)
	}
	// A collector that has looked for roots before these were there has not
	// necessarily read the temporary ones yet, which are given up now.
	return d.roots.announce(ctx, top)
}

func (d *destination) replaceGCRoot(name string, paths []string) (err error) {
	dir := filepath.Join(d.root, gcRootsDir, name)
	for parent := range parents(name) {
		if err := d.makeDir(filepath.Join(d.root, gcRootsDir, parent)); err != nil {
			return err
		}
	}
	// Nix takes what is in there for roots, too, and does no harm by it.
	temp := filepath.Join(d.root, gcRootsDir, "tmp-vm-prebuild-"+strconv.FormatUint(rand.Uint64(), 36))
	if err := os.Mkdir(temp, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	for _, path := range paths {
		if err := os.Symlink(path, filepath.Join(temp, baseName(path))); err != nil {
			return err
		}
	}
	err = unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, dir, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		err = unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: temp, New: dir, Err: err}
	}
	return nil
}

// parents yields the directories that name lies in, outermost first.
func parents(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i, c := range name {
			if c == '/' && !yield(name[:i]) {
				return
			}
		}
	}
}

// topPaths returns the paths that no other path of c refers to, sorted. All
// others are kept by them, because no references lead in a circle.
func (c *Closure) topPaths() []string {
	referred := map[string]bool{}
	for _, info := range c.Paths {
		for _, reference := range info.References {
			if reference != info.Path {
				referred[reference] = true
			}
		}
	}
	var top []string
	for _, info := range c.Paths {
		if !referred[info.Path] {
			top = append(top, info.Path)
		}
	}
	slices.Sort(top)
	return top
}
