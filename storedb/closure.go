package storedb

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unicode"

	"github.com/zeebo/blake3"
)

// registrationFile is the file of a closureInfo directory that has all about its
// paths.
const registrationFile = "registration"

// Closure is a set of store paths and what is known of each.
type Closure struct {
	Name  string // file or store that it was read from, for messages
	Paths []PathInfo

	digest digest // of the registration file; zero if it was read from elsewhere
}

// ReadClosureInfo reads the directory that nixpkgs' closureInfo builds, as
// [ReadRegistration] does with the two files in it.
func ReadClosureInfo(dir string) (*Closure, error) {
	if _, err := os.Stat(filepath.Join(dir, registrationFile)); errors.Is(err, fs.ErrNotExist) {
		inside := filepath.Join(dir, "closure-info")
		if _, err := os.Stat(filepath.Join(inside, registrationFile)); err == nil {
			return nil, &InputError{File: dir, Reason: "not a closureInfo directory", Err: fs.ErrNotExist, Hint: "it has one: " + inside}
		}
	}
	return ReadRegistration(filepath.Join(dir, registrationFile), filepath.Join(dir, StorePathsFile))
}

// ReadRegistration reads a file in the format of nix-store --load-db. If
// storePaths is not empty, the file of that name must list the same paths, each
// once, one a line. What is wrong with the files is returned as an *InputError; whether
// references lead anywhere, and not in a circle, is for those to find out who
// register the closure.
func ReadRegistration(registration, storePaths string) (*Closure, error) {
	c := &Closure{Name: registration}
	var listed []string
	var listErr error
	var list sync.WaitGroup
	if storePaths != "" {
		list.Go(func() { listed, listErr = ReadStorePaths(storePaths) })
	}
	err := readInput(registration, func(r io.Reader) (err error) {
		hash := blake3.New()
		c.Paths, err = ParseRegistration(io.TeeReader(r, hash), registration)
		hash.Sum(c.digest[:0])
		return err
	})
	list.Wait()
	if err != nil {
		return nil, err
	}
	if listErr != nil {
		return nil, listErr
	}
	if storePaths != "" {
		if err := checkStorePaths(storePaths, listed, c.Paths); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// readInput opens a file that describes a closure for read.
func readInput(file string, read func(io.Reader) error) error {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return &InputError{File: file, Reason: "no such file", Err: err,
			Hint: "give a directory built by closureInfo; it has the files registration and store-paths"}
	}
	if err != nil {
		return fmt.Errorf("read closureInfo: %w", err)
	}
	defer f.Close()
	return read(f)
}

// check makes sure that paths that were not read from a registration, where all
// of this is checked, are what they should be.
func (c *Closure) check() error {
	for _, info := range c.Paths {
		if info.line > 0 {
			continue
		}
		if err := info.check(); err != nil {
			e := c.errorAt(info, "%v", err)
			e.Err = err
			return e
		}
	}
	return nil
}

func (i PathInfo) check() error {
	if err := CheckStorePath(i.Path); err != nil {
		return err
	}
	for _, reference := range i.References {
		if err := CheckStorePath(reference); err != nil {
			return fmt.Errorf("%s: reference %w", i.Path, err)
		}
	}
	if i.Deriver != "" {
		if err := CheckStorePath(i.Deriver); err != nil {
			return fmt.Errorf("%s: deriver %w", i.Path, err)
		}
		if !isDerivation(i.Deriver) {
			return fmt.Errorf("%s: deriver %q does not end in .drv", i.Path, i.Deriver)
		}
	}
	if i.NarSize < 0 || i.NarSize > maxNarSize {
		return fmt.Errorf("%s: narSize %d is not between 0 and %d", i.Path, i.NarSize, int64(maxNarSize))
	}
	for _, sig := range i.Sigs {
		if sig == "" || strings.ContainsFunc(sig, unicode.IsSpace) { // the database separates them by spaces
			return fmt.Errorf("%s: signature %q is empty or has spaces", i.Path, sig)
		}
	}
	return nil
}

// errorAt says what is wrong with info, which is one of c.Paths.
func (c *Closure) errorAt(info PathInfo, format string, args ...any) *InputError {
	return &InputError{File: c.Name, Line: info.line, Reason: fmt.Sprintf(format, args...)}
}

// StorePathsFile is the name of the file in a directory built by nixpkgs'
// closureInfo that [ReadStorePaths] reads.
const StorePathsFile = "store-paths"

// ReadStorePaths reads a file that lists store paths, one a line. That of a
// closure is all that is needed to show the closure, and much shorter than its
// registration. What is wrong with it is returned as an *InputError.
func ReadStorePaths(file string) ([]string, error) {
	var paths []string
	seen := map[string]bool{}
	err := readInput(file, func(r io.Reader) error {
		lines := newLineReader(r, file)
		for {
			line, err := lines.next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			path := string(line)
			if err := CheckStorePath(path); err != nil {
				return lines.errorAt(lines.line, err, "path %v", err)
			}
			if seen[path] {
				return lines.errorf("%s is listed a second time", path)
			}
			seen[path] = true
			paths = append(paths, path)
		}
	})
	return paths, err
}

// checkStorePaths checks that the paths listed in file are those of infos and no
// others. A difference means that the directory was put together by hand or cut
// off.
func checkStorePaths(file string, listed []string, infos []PathInfo) error {
	if slices.EqualFunc(listed, infos, func(path string, info PathInfo) bool { return path == info.Path }) {
		return nil // as closureInfo writes them
	}
	unlisted := make(map[string]bool, len(infos))
	for _, info := range infos {
		unlisted[info.Path] = true
	}
	for n, path := range listed {
		if !unlisted[path] { // they are all different
			return &InputError{File: file, Line: n + 1, Reason: path + " is not in the registration"}
		}
		unlisted[path] = false
	}
	for _, info := range infos {
		if unlisted[info.Path] {
			return &InputError{File: file, Reason: fmt.Sprintf("%s is in the registration (line %d) but not here", info.Path, info.line)}
		}
	}
	return nil
}
