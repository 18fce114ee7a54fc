package machine

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// writeTar writes a directory as a tar archive whose files lie below name.
// Links are followed. Without contents, the archive has the same length, and
// zeros for the files.
func writeTar(ctx context.Context, to io.Writer, dir, name string, contents bool) error {
	w := tar.NewWriter(to)
	if err := addTree(ctx, w, dir, name, contents, 0); err != nil {
		return err
	}
	return w.Close()
}

// tarLength is how long the archive of writeTar will be. A guest is told that
// before it gets one.
func tarLength(ctx context.Context, dir, name string) (int64, error) {
	var length counter
	err := writeTar(ctx, &length, dir, name, false)
	return int64(length), err
}

// maxDepth bounds how deep directories may be nested: a link to a directory
// above it has no end.
const maxDepth = 200

func addTree(ctx context.Context, w *tar.Writer, file, name string, contents bool, depth int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if depth > maxDepth {
		return fmt.Errorf("%s: directories are nested more than %d deep\nhint: does a link lead to a directory above it?", file, maxDepth)
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	header := &tar.Header{Name: name, Mode: int64(info.Mode().Perm()), Format: tar.FormatGNU}
	switch {
	case info.IsDir():
		header.Typeflag, header.Name = tar.TypeDir, name+"/"
	case info.Mode().IsRegular():
		header.Typeflag, header.Size = tar.TypeReg, info.Size()
	default:
		return fmt.Errorf("%s is neither a file nor a directory", file)
	}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	if !info.IsDir() {
		return addContents(w, file, info.Size(), contents)
	}
	entries, err := os.ReadDir(file)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := addTree(ctx, w, filepath.Join(file, e.Name()), name+"/"+e.Name(), contents, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func addContents(w *tar.Writer, file string, size int64, contents bool) error {
	if !contents {
		_, err := io.CopyN(w, zeros{}, size)
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.CopyN(w, f, size)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s became shorter while it was copied: %d of %d bytes", file, n, size)
	}
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// unpackInto unpacks an archive that holds name, a file or a directory, and puts
// it into dir: as a whole or not at all. A file replaces a file; a directory must
// be new.
func unpackInto(dir, name string, from io.Reader) (err error) {
	tmp, err := os.MkdirTemp(dir, ".copy-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeAll(tmp)) }()
	modes, err := readTar(from, tmp, name)
	if err != nil {
		return err
	}
	target := filepath.Join(dir, name)
	if len(modes) > 0 {
		if _, err := os.Lstat(target); err == nil {
			return fmt.Errorf("%s: %w", target, fs.ErrExist)
		}
	}
	if err := os.Rename(filepath.Join(tmp, name), target); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	// The deepest first: a directory without x would hide those below.
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(modes))) {
		err = errors.Join(err, root.Chmod(name, modes[name]))
	}
	return err
}

// readTar unpacks an archive that holds only name into dir and returns the modes of its
// directories, which can be written to until they are applied. It comes from a
// guest, so nothing in it may lead out of there.
func readTar(from io.Reader, dir, only string) (map[string]fs.FileMode, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	r := tar.NewReader(from)
	modes := map[string]fs.FileMode{}
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return modes, nil
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean(strings.TrimSuffix(h.Name, "/"))
		if name != only && !strings.HasPrefix(name, only+"/") {
			return nil, fmt.Errorf("the archive of %q has a file %q", only, h.Name)
		}
		mode := h.FileInfo().Mode().Perm()
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o700)
			modes[name] = mode
		case tar.TypeReg:
			err = unpackFile(root, name, mode, r)
		case tar.TypeLink: // a further name of a file
			err = root.Link(path.Clean(h.Linkname), name)
		default:
			// A socket, a device: no file that could be copied.
			continue
		}
		if err != nil {
			return nil, err
		}
	}
}

func unpackFile(root *os.Root, name string, mode fs.FileMode, r io.Reader) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Chmod(mode)
	}
	return errors.Join(err, f.Close())
}
