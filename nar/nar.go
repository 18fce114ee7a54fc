// Package nar reads and writes Nix archives (NAR), the canonical serialisation
// of a file tree that Nix hashes store paths by. Dump and Unpack are the entry
// points; Hash gives the two figures the store database keeps of each path,
// narHash and narSize, and Reader reads an archive entry by entry.
//
// The format is the one of the Nix manual, "Nix Archive (NAR) format": a
// sequence of strings, each a little-endian 64-bit length, the bytes, and zero
// bytes up to the next multiple of eight. An archive knows only regular files
// (with an executable bit), directories (entries sorted bytewise) and symbolic
// links; owner, other mode bits and times are not part of it.
//
// What is read is held to what is written: of each tree there is one archive,
// and any other sequence of bytes is refused.
package nar

import (
	"errors"
	"fmt"
	"strings"
)

// magic is the first string of every archive.
const magic = "nix-archive-1"

const (
	maxName   = 255  // bytes of a name, as on any file system of Linux
	maxTarget = 4095 // bytes of a symbolic link's target, as Linux takes
)

// bufferSize is large enough that a whole small file, and most of the tokens
// around it, go out in one write.
const bufferSize = 256 << 10

// Type is the kind of a file in an archive, as the format spells it.
type Type string

// The three kinds of files that an archive can hold.
const (
	TypeRegular   Type = "regular"
	TypeDirectory Type = "directory"
	TypeSymlink   Type = "symlink"
)

// checkName returns nil if name can be the name of an entry of a directory.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("a name is empty")
	case name == "." || name == "..":
		return fmt.Errorf("the name %q is not one of an entry", name)
	case len(name) > maxName:
		return fmt.Errorf("a name has %d bytes, more than %d", len(name), maxName)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("the name %q has a slash or a NUL in it", name)
	}
	return nil
}

// checkTarget returns nil if target can be that of a symbolic link.
func checkTarget(target string) error {
	switch {
	case target == "":
		return errors.New("the target of a symbolic link is empty")
	case len(target) > maxTarget:
		return fmt.Errorf("the target of a symbolic link has %d bytes, more than %d", len(target), maxTarget)
	case strings.Contains(target, "\x00"):
		return fmt.Errorf("the target %q of a symbolic link has a NUL in it", target)
	}
	return nil
}
