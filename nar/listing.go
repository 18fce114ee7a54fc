package nar

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// Listing describes the contents of an archive: the `.ls` file that a binary
// cache may have beside a narinfo, by which a single file can be read out of an
// uncompressed archive.
type Listing struct {
	Root Node
}

// Node is a file of a Listing.
type Node struct {
	Type       Type
	Size       int64            // bytes of a regular file
	Executable bool             // of a regular file
	NarOffset  int64            // of a regular file's contents, bytes from the start of the archive
	Target     string           // of a symbolic link
	Entries    map[string]*Node // of a directory; not nil
}

// ErrNotUTF8 is the error of writing a listing with names or targets that JSON
// cannot hold.
var ErrNotUTF8 = errors.New("a listing is JSON, which cannot hold a name that is not UTF-8")

// MarshalJSON writes the listing as Nix does, version 1 of the format. It fails
// with ErrNotUTF8 if a name or target is not UTF-8.
func (l *Listing) MarshalJSON() ([]byte, error) {
	root, err := l.Root.object()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(map[string]any{"root": root, "version": 1}); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), nil
}

// object returns the node as what JSON calls one.
func (n *Node) object() (map[string]any, error) {
	if !utf8.ValidString(n.Target) {
		return nil, ErrNotUTF8
	}
	o := map[string]any{"type": n.Type}
	switch n.Type {
	case TypeDirectory:
		entries := make(map[string]any, len(n.Entries))
		for name, entry := range n.Entries {
			if !utf8.ValidString(name) {
				return nil, ErrNotUTF8
			}
			var err error
			if entries[name], err = entry.object(); err != nil {
				return nil, err
			}
		}
		o["entries"] = entries
	case TypeRegular:
		o["size"], o["narOffset"] = n.Size, n.NarOffset
		if n.Executable {
			o["executable"] = true
		}
	case TypeSymlink:
		o["target"] = n.Target
	}
	return o, nil
}
