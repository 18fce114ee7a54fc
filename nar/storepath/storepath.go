// Package storepath tells what is a store path. Check is the entry point; the
// rules are Nix's own (libstore/path.cc).
package storepath

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixbase32"
)

// Dir is the logical store directory. Paths are known by it wherever the store
// lies.
const Dir = "/nix/store"

const (
	// HashPartLen is the number of nix32 characters that a name in the store
	// begins with.
	HashPartLen = 32

	maxNameLen = 211 // characters of what follows the hash part and its hyphen
)

// Check returns nil if path is a store path exactly as Nix prints one: Dir, a
// slash, 32 characters of nix32, a hyphen, and a name.
func Check(path string) error {
	base, ok := strings.CutPrefix(path, Dir+"/")
	if !ok {
		return fmt.Errorf("%q is not in %s", path, Dir)
	}
	if strings.Contains(base, "/") {
		return fmt.Errorf("%q is not a store path: it has more than one component below %s", path, Dir)
	}
	if len(base) < HashPartLen+2 || base[HashPartLen] != '-' {
		return fmt.Errorf("%q is not a store path: it does not have the form HASH-NAME", path)
	}
	if nixbase32.ValidateString(base[:HashPartLen]) != nil {
		return fmt.Errorf("%q is not a store path: its hash part has a character that is not nix32", path)
	}
	if err := checkName(base[HashPartLen+1:]); err != nil {
		return fmt.Errorf("%q is not a store path: %w", path, err)
	}
	return nil
}

// checkName checks what follows the hash part, which is not empty.
func checkName(name string) error {
	if len(name) > maxNameLen {
		return fmt.Errorf("its name has more than %d characters", maxNameLen)
	}
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && strings.IndexByte("+-._?=", c) < 0 {
			return fmt.Errorf("its name has the character %q", c)
		}
	}
	// Nix refuses these so that no store path ends in something that looks like
	// the directory itself or its parent.
	if first, _, _ := strings.Cut(name, "-"); first == "." || first == ".." {
		return errors.New("its name begins with a dot component")
	}
	return nil
}
