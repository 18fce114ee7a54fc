// Package binarycache reads and writes Nix binary caches: directories, which a
// web server may serve, with a narinfo for each store path and its archive in a
// compressed file. [Open] and [Write] are the entry points.
//
// The layout is that of Nix (libstore/binary-cache-store.cc): nix-cache-info says
// which store directory the cache is for; HASHPART.narinfo describes a path, and
// says where its archive is, as a rule nar/FILEHASH.nar and a suffix for the
// compression; HASHPART.ls, which need not be there, lists what is in the archive.
// A narinfo is only written when those of all that its path refers to are there.
package binarycache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"github.com/nix-community/go-nix/pkg/nixbase32"

	"vm-prebuild/nar/compress"
	"vm-prebuild/nar/narinfo"
	"vm-prebuild/nar/storepath"
)

const (
	cacheInfoFile = "nix-cache-info"
	narInfoSuffix = ".narinfo"
	listingSuffix = ".ls"
	narDir        = "nar"
)

// maxCacheInfo is more than any nix-cache-info has, in bytes.
const maxCacheInfo = 64 << 10

// ErrNotFound is what a path that a cache does not have is reported as.
var ErrNotFound = errors.New("not in the cache")

// ErrNoListing is returned where the paths of a cache behind a URL are asked for.
var ErrNoListing = errors.New("a cache behind a URL cannot be listed")

// Error says that a file of a cache is not what it has to be.
type Error struct {
	Cache, File string
	Reason      string
	Lie         bool  // the file is well-formed, but contradicts another or itself
	Err         error // the cause; may be nil
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s: %s", e.Cache, e.File, e.Reason) }

func (e *Error) Unwrap() error { return e.Err }

// ExitCode is that of a failed check if the cache lies, and of bad input
// otherwise.
func (e *Error) ExitCode() int {
	if e.Lie {
		return 1
	}
	return 2
}

// Options says how to read a cache.
type Options struct {
	// TrustedKeys are those of which one must have signed each path, content
	// addressed or not. With none, signatures are not looked at.
	TrustedKeys []signature.PublicKey
	// Netrc is a file with credentials for web servers; empty means none. That
	// it does not exist is an error unless NetrcOptional.
	Netrc         string
	NetrcOptional bool
	// Connections is how many files are fetched from a web server at once; 0
	// means DefaultConnections.
	Connections int
}

// DefaultConnections is how many files are fetched at once from a web server,
// which takes its time to answer.
const DefaultConnections = 16

// Cache is one that can be read, by several goroutines at once.
type Cache struct {
	name         string // for messages
	source       source
	keys         []signature.PublicKey
	connections  int
	decompressor compress.Decompressor
}

// Open opens the cache at location, a directory or a file, http or https URL. A
// cache for another store directory than Nix's usual one is an error.
func Open(ctx context.Context, location string, o Options) (*Cache, error) {
	dir, u, err := parseLocation(location)
	if err != nil {
		return nil, &Error{Cache: "cache", File: "location", Reason: err.Error(), Err: err}
	}
	c := &Cache{name: dir, keys: o.TrustedKeys, connections: o.Connections}
	if c.connections <= 0 {
		c.connections = DefaultConnections
	}
	if u == nil {
		c.source, err = openDir(dir)
	} else {
		c.name = u.Redacted()
		var credentials netrc
		if o.Netrc != "" {
			credentials, err = readNetrc(o.Netrc, o.NetrcOptional)
		}
		c.source = newHTTPSource(u, credentials, c.connections, usualPatience)
	}
	if err != nil {
		return nil, err
	}
	if err := c.checkInfo(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Name is where the cache is.
func (c *Cache) Name() string { return c.name }

// Close ends the use of the cache.
func (c *Cache) Close() { c.source.close() }

// checkInfo makes sure that this is a cache for our store directory.
func (c *Cache) checkInfo(ctx context.Context) error {
	text, err := c.read(ctx, cacheInfoFile, maxCacheInfo)
	if errors.Is(err, fs.ErrNotExist) {
		return c.errorf(cacheInfoFile, err, "no such file: this is not a binary cache")
	}
	if err != nil {
		return err
	}
	return checkCacheInfo(c.name, text)
}

// checkCacheInfo makes sure that a nix-cache-info names our store directory.
func checkCacheInfo(cache, text string) error {
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		if dir, ok := strings.CutPrefix(lines.Text(), "StoreDir:"); ok {
			if dir = strings.TrimSpace(dir); dir != storepath.Dir {
				return &Error{Cache: cache, File: cacheInfoFile, Reason: fmt.Sprintf("the cache is for the store directory %q, not for %s", dir, storepath.Dir)}
			}
			return nil
		}
	}
	return &Error{Cache: cache, File: cacheInfoFile, Reason: "it does not name a store directory"}
}

// read returns a file of at most limit bytes.
func (c *Cache) read(ctx context.Context, name string, limit int64) (string, error) {
	f, _, err := c.source.open(ctx, name, -1)
	if err != nil {
		return "", c.wrap(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return "", c.wrap(err)
	}
	if int64(len(text)) > limit {
		return "", c.errorf(name, nil, "has more than %d bytes", limit)
	}
	return string(text), nil
}

// wrap says which cache an error is from that says which file.
func (c *Cache) wrap(err error) error { return fmt.Errorf("binary cache %s: %w", c.name, err) }

func (c *Cache) errorf(file string, err error, format string, args ...any) error {
	return &Error{Cache: c.name, File: file, Reason: fmt.Sprintf(format, args...), Err: err}
}

func (c *Cache) lie(file string, err error, format string, args ...any) error {
	return &Error{Cache: c.name, File: file, Reason: fmt.Sprintf(format, args...), Err: err, Lie: true}
}

// checkHashPart returns nil if part can be the hash part of a store path.
func checkHashPart(part string) error {
	if len(part) != storepath.HashPartLen || nixbase32.ValidateString(part) != nil {
		return fmt.Errorf("%q is not the hash part of a store path", part)
	}
	return nil
}

// HashPart returns the hash part of a store path, or what is one already.
func HashPart(path string) (string, error) {
	if !strings.HasPrefix(path, "/") {
		return path, checkHashPart(path)
	}
	if err := storepath.Check(path); err != nil {
		return "", err
	}
	return path[len(storepath.Dir)+1:][:storepath.HashPartLen], nil
}

// hashPart is that of a checked store path.
func hashPart(path string) string {
	return path[len(storepath.Dir)+1:][:storepath.HashPartLen]
}

// NarInfo returns what the cache says of the path with a hash part, having
// checked its signatures. A path that is not there is ErrNotFound.
func (c *Cache) NarInfo(ctx context.Context, part string) (*narinfo.NarInfo, error) {
	info, _, err := c.narInfo(ctx, part)
	return info, err
}

// narInfo returns the size of the file, too.
func (c *Cache) narInfo(ctx context.Context, part string) (*narinfo.NarInfo, int, error) {
	if err := checkHashPart(part); err != nil {
		return nil, 0, c.errorf(part, err, "%v", err)
	}
	file := part + narInfoSuffix
	text, err := c.read(ctx, file, maxNarInfo)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, c.errorf(file, ErrNotFound, "no such file: the cache does not have this path")
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := narinfo.Parse(strings.NewReader(text), c.name+"/"+file)
	if err != nil {
		return nil, 0, err
	}
	if info.HashPart() != part {
		return nil, 0, c.lie(file, nil, "it is about %s", info.StorePath)
	}
	if len(c.keys) > 0 {
		if err := info.Verify(c.keys...); err != nil {
			return nil, 0, c.lie(file, err, "%v", err)
		}
	}
	return info, len(text), nil
}

// maxNarInfo bounds a narinfo, in bytes.
const maxNarInfo = 1 << 20

// HashParts returns the hash parts of all paths that a cache in a directory has,
// in no order, and ErrNoListing for one behind a URL.
func (c *Cache) HashParts(ctx context.Context) ([]string, error) {
	dir, ok := c.source.(*dirSource)
	if !ok {
		return nil, fmt.Errorf("binary cache %s: %w", c.name, ErrNoListing)
	}
	parts, err := dir.hashParts(ctx)
	if err != nil {
		return nil, c.wrap(err)
	}
	return parts, nil
}
