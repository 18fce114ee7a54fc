package binarycache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// source is where the files of a cache are.
type source interface {
	// open returns the file with the slash-separated name and its size in bytes,
	// -1 if that is not known; size is what the caller believes it to be, or -1.
	// A file that does not exist is fs.ErrNotExist. Errors name the file; ctx ends
	// reading, too.
	open(ctx context.Context, name string, size int64) (io.ReadCloser, int64, error)
	close()
}

// parseLocation takes where a cache is for a directory or a URL.
func parseLocation(location string) (dir string, u *url.URL, err error) {
	if !strings.Contains(location, "://") {
		return location, nil, nil
	}
	u, err = url.Parse(location)
	if err != nil {
		// The error quotes the URL, which may have a password in it.
		return "", nil, errors.New("the cache's URL cannot be parsed")
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return "", nil, fmt.Errorf("%s: settings after the URL of a cache are Nix's, and are flags here", u.Redacted())
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" && u.Host != "localhost" || !path.IsAbs(u.Path) {
			return "", nil, fmt.Errorf("%s: a file URL is file:// and an absolute path", u)
		}
		return filepath.Clean(u.Path), nil, nil
	case "http", "https":
		if u.Host == "" {
			return "", nil, fmt.Errorf("%s: the URL has no host", u.Redacted())
		}
		return "", u, nil
	}
	return "", nil, fmt.Errorf("%s: a cache is a directory or a file, http or https URL, not %q", u.Redacted(), u.Scheme)
}

// IsURL says whether location names a cache by URL, as opposed to a directory
// by its path.
func IsURL(location string) bool { return strings.Contains(location, "://") }

// dirSource is a cache in a directory.
type dirSource struct{ root *os.Root }

func openDir(dir string) (*dirSource, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open binary cache: %w", err)
	}
	return &dirSource{root}, nil
}

func (d *dirSource) open(_ context.Context, name string, _ int64) (io.ReadCloser, int64, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: f.Name(), Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// hashParts returns those of the store paths that the cache has, in order.
func (d *dirSource) hashParts(ctx context.Context) ([]string, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var parts []string
	for {
		names, err := f.Readdirnames(4096)
		for _, name := range names {
			if part, ok := strings.CutSuffix(name, narInfoSuffix); ok && checkHashPart(part) == nil {
				parts = append(parts, part)
			}
		}
		if errors.Is(err, io.EOF) {
			return parts, nil
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return nil, err
		}
	}
}

func (d *dirSource) close() { _ = d.root.Close() } // nothing has been written
