package prebuild

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"vm-prebuild/testrun/suite"
)

// DefaultBuild is the installable that holds all prebuilt tests of a flake.
const DefaultBuild = ".#run-vm-tests-with-cache"

// manifestFile is where nix/run-vm-tests.nix puts the manifest in its output.
const manifestFile = "manifest.json"

// Result is a manifest of prebuilt tests and where it is.
type Result struct {
	Path     string          // the manifest's absolute path
	Manifest *suite.Manifest // what it says
}

// Build builds an installable whose output has a manifest, such as
// [DefaultBuild], and makes link a symbolic link to it, which also keeps it from
// the garbage collector.
func (n *Nix) Build(ctx context.Context, installable, link string) (*Result, error) {
	n.say("building %s", installable)
	args := append([]string{"--print-build-logs", "--out-link", link}, n.Args...)
	if _, _, err := n.run(ctx, n.Log, "build", append(args, installable)...); err != nil {
		return nil, fmt.Errorf("building %s: %w", installable, err)
	}
	return Find(link)
}

// Find reads the manifest at path, which is a manifest or a build result that
// holds one. That there is no manifest, or a bad one, is a
// *[suite.ManifestError].
func Find(path string) (*Result, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		dir := path
		path = filepath.Join(dir, manifestFile)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, &suite.ManifestError{Path: path, Err: fmt.Errorf("%s holds none\nhint: build %s, or another installable made by vm-prebuild's Nix functions", dir, DefaultBuild)}
		}
	}
	m, err := suite.ReadManifest(path)
	if err != nil {
		return nil, err
	}
	return &Result{Path: path, Manifest: m}, nil
}
