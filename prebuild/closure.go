package prebuild

import (
	"os"
	"path/filepath"
)

// FindClosureInfo returns the closureInfo directory that path stands for: path
// itself, or the one named by the manifest that [Find] finds at path. A manifest
// names it as a store path; root is the root of the store where it lies, "/" for
// the system's.
func FindClosureInfo(path, root string) (string, error) {
	if _, err := os.Stat(filepath.Join(path, "registration")); err == nil {
		return path, nil
	}
	result, err := Find(path)
	if err != nil {
		return "", err
	}
	return filepath.Join(root, result.Manifest.ClosureInfo), nil
}
