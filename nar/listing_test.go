package nar

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// A listing says where in the archive a file's contents are.
func TestListingOffsets(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	oddTree(t, dir)
	r, w := io.Pipe()
	var listing *Listing
	go func() {
		var err error
		listing, err = DumpListing(w, dir)
		w.CloseWithError(err)
	}()
	reader := NewReader(r)
	parents := []map[string]*Node{}
	var entries []Entry
	for {
		e, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	for _, e := range entries {
		node := &listing.Root
		if e.Depth > 0 {
			node = parents[e.Depth-1][e.Name]
		}
		if node == nil || node.Type != e.Type || node.Size != e.Size || node.NarOffset != e.Offset || node.Executable != e.Executable || node.Target != e.Target {
			t.Fatalf("listing has %+v, want %+v", node, e)
		}
		parents = append(parents[:e.Depth], node.Entries)
	}
}

func TestListingNotUTF8(t *testing.T) {
	for name, make := range map[string]func(dir string) error{
		"name":   func(dir string) error { return os.WriteFile(dir+"/\xff", nil, 0o644) },
		"target": func(dir string) error { return os.Symlink("\xff", dir+"/link") },
	} {
		dir := t.TempDir()
		if err := make(dir); err != nil {
			t.Fatal(err)
		}
		listing, err := DumpListing(io.Discard, dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := json.Marshal(listing); !errors.Is(err, ErrNotUTF8) {
			t.Errorf("%s: err = %v, want %v", name, err, ErrNotUTF8)
		}
	}
}
