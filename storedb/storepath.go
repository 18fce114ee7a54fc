package storedb

import (
	"strings"

	"vm-prebuild/nar/storepath"
)

// StoreDir is the logical store directory. Paths are registered under it
// wherever the store lies.
const StoreDir = storepath.Dir

// CheckStorePath is [storepath.Check].
func CheckStorePath(path string) error { return storepath.Check(path) }

// baseName is the name of a checked store path in the store directory.
func baseName(path string) string { return path[len(StoreDir)+1:] }

func isDerivation(path string) bool { return strings.HasSuffix(path, ".drv") }
