package storedb

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixbase32"
)

// StoreDir is the logical store directory. Paths are registered under it
// wherever the store lies.
const StoreDir = "/nix/store"

const (
	hashPartLen = 32  // characters of nix32 that a store path begins with
	maxNameLen  = 211 // characters of a store path's name, as in Nix
)

// CheckStorePath returns nil if path is a store path exactly as Nix prints one:
// StoreDir, a slash, 32 characters of nix32, a hyphen, and a name.
func CheckStorePath(path string) error {
	base, ok := strings.CutPrefix(path, StoreDir+"/")
	if !ok {
		return fmt.Errorf("%q is not in %s", path, StoreDir)
	}
	if strings.Contains(base, "/") {
		return fmt.Errorf("%q is not a store path: it has more than one component below %s", path, StoreDir)
	}
	if len(base) < hashPartLen+2 || base[hashPartLen] != '-' {
		return fmt.Errorf("%q is not a store path: it does not have the form HASH-NAME", path)
	}
	if i := strings.IndexFunc(base[:hashPartLen], func(c rune) bool { return !strings.ContainsRune(nixbase32.Alphabet, c) }); i >= 0 {
		return fmt.Errorf("%q is not a store path: its hash part has a character that is not nix32", path)
	}
	if err := checkName(base[hashPartLen+1:]); err != nil {
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

// baseName is the name of a checked store path in the store directory.
func baseName(path string) string { return path[len(StoreDir)+1:] }

func isDerivation(path string) bool { return strings.HasSuffix(path, ".drv") }
