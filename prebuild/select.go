package prebuild

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"vm-prebuild/nar/storepath"
	"vm-prebuild/storedb"
)

// Selection says which store paths are meant. It is either one of the first two
// or the third.
type Selection struct {
	ClosureInfo string   // a closureInfo directory
	Image       string   // the database image that belongs to it; empty if there is none
	Paths       []string // store paths or hash parts of some; the closure of them is meant
}

// imageName is what a prebuild calls the database image beside its closureInfo.
const imageName = "store-db"

// Select finds out what the arguments of a command mean: one closureInfo
// directory, build result or manifest (which [FindClosureInfo] looks for in the
// store below root), or store paths and hash parts of some. A file below a store
// path stands for that. pathsFile, if not empty, lists more of them, one a line;
// "-" is stdin.
func Select(args []string, pathsFile, root string, stdin io.Reader) (Selection, error) {
	var s Selection
	for _, arg := range args {
		path, ok := storePathOf(arg)
		if !ok || len(args) == 1 && pathsFile == "" && isClosureInfo(arg, root) {
			if len(args) > 1 || pathsFile != "" {
				return s, &SelectionError{fmt.Sprintf("%s is not a store path, and nothing else can be one of several", arg)}
			}
			closureInfo, err := FindClosureInfo(arg, root)
			if err != nil {
				return s, err
			}
			s.ClosureInfo = closureInfo
			if image := filepath.Join(filepath.Dir(closureInfo), imageName); isDir(image) {
				s.Image = image
			}
			return s, nil
		}
		s.Paths = append(s.Paths, path)
	}
	if pathsFile != "" {
		paths, err := readPaths(pathsFile, stdin)
		if err != nil {
			return s, err
		}
		s.Paths = append(s.Paths, paths...)
	}
	return s, nil
}

// SelectionError says that arguments mean no store paths.
type SelectionError struct{ Reason string }

func (e *SelectionError) Error() string { return e.Reason }

// ExitCode is that of wrong usage.
func (e *SelectionError) ExitCode() int { return 2 }

// isClosureInfo says whether arg, which may be a store path by its form, is a
// closureInfo directory or a result, rather than one of the paths of a closure.
func isClosureInfo(arg, root string) bool {
	_, err := FindClosureInfo(arg, root)
	return err == nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// storePathOf returns the store path that arg names: as a path in the store or
// below one there, or by its hash part.
func storePathOf(arg string) (string, bool) {
	if rest, ok := strings.CutPrefix(arg, storepath.Dir+"/"); ok {
		base, _, _ := strings.Cut(rest, "/")
		path := storepath.Dir + "/" + base
		return path, storepath.Check(path) == nil
	}
	// A hash part is one if a name makes a store path of it.
	return arg, len(arg) == storepath.HashPartLen && storepath.Check(storepath.Dir+"/"+arg+"-x") == nil
}

// readPaths reads a list of store paths or hash parts.
func readPaths(file string, stdin io.Reader) ([]string, error) {
	r := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, &SelectionError{err.Error()}
		}
		defer f.Close()
		r = f
	} else {
		file = "stdin"
	}
	var paths []string
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" {
			continue
		}
		path, ok := storePathOf(line)
		if !ok {
			return nil, &SelectionError{fmt.Sprintf("%s:%d: %q is neither a store path nor the hash part of one", file, n, line)}
		}
		paths = append(paths, path)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return paths, nil
}

// Closure reads the closure that is selected from the closureInfo, or for store
// paths from the database of the store below root.
func (s Selection) Closure(ctx context.Context, root string) (*storedb.Closure, error) {
	if s.ClosureInfo != "" {
		return storedb.ReadClosureInfo(s.ClosureInfo)
	}
	if len(s.Paths) == 0 {
		return nil, &SelectionError{fmt.Sprintf("nothing is said to be taken from the store %s\nhint: name a build result, store paths, or with --paths a file that lists them", root)}
	}
	for _, path := range s.Paths {
		if !strings.HasPrefix(path, "/") {
			return nil, &SelectionError{fmt.Sprintf("%s: a local store is asked for paths, not for hash parts", path)}
		}
	}
	return storedb.QueryClosure(ctx, root, s.Paths)
}
