package testrun

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// RuntimeDirectory is the directory for sockets and the states of machines that
// the environment asks for, and what asks for it. As with nixpkgs' driver that
// is $XDG_RUNTIME_DIR, else where Python would put temporary files: the first
// directory that can be written to of $TMPDIR, $TEMP, $TMP, /tmp, /var/tmp,
// /usr/tmp and the working directory.
func RuntimeDirectory() (dir, variable string, err error) {
	const xdg = "XDG_RUNTIME_DIR"
	if dir := os.Getenv(xdg); dir != "" {
		dir, err := filepath.Abs(dir)
		return dir, xdg, err
	}
	type candidate struct{ dir, variable string }
	var candidates []candidate
	for _, name := range []string{"TMPDIR", "TEMP", "TMP"} {
		if dir := os.Getenv(name); dir != "" {
			candidates = append(candidates, candidate{dir, name})
		}
	}
	for _, dir := range []string{"/tmp", "/var/tmp", "/usr/tmp", "."} {
		candidates = append(candidates, candidate{dir, ""})
	}
	for _, c := range candidates {
		if dir, err := filepath.Abs(c.dir); err == nil && checkWritableDir(dir) == nil {
			return dir, c.variable, nil
		}
	}
	return "", "", errors.New("there is no directory for temporary files\n" + ownDirectory)
}

// makeRuntimeDirectory returns that directory. It is made when it is not there,
// for its user alone.
func makeRuntimeDirectory() (string, error) {
	dir, variable, err := RuntimeDirectory()
	if err != nil {
		return "", fmt.Errorf("runtime directory: %w", err)
	}
	what := "runtime directory " + dir
	if variable != "" {
		what += " (environment variable " + variable + ")"
	}
	// A directory that is there already may be one that we cannot look into.
	if err := os.MkdirAll(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOTDIR) {
		return "", fmt.Errorf("%s: %w\n%s", what, unpath(err), ownDirectory)
	}
	if err := checkWritableDir(dir); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", what, err, ownDirectory)
	}
	return dir, nil
}

// checkWritableDir returns why files cannot be made in dir; nil if they can.
func checkWritableDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return unpath(err)
	}
	if !info.IsDir() {
		return syscall.ENOTDIR
	}
	return unix.Access(dir, unix.W_OK|unix.X_OK)
}

// checkOutDir refuses a directory for results that cannot take any: at the end
// of a test that would be found out too late.
func (c *Config) checkOutDir() error {
	if err := checkWritableDir(c.OutDir); err != nil {
		return configErrorf("output directory %s: %w\nhint: -o names a directory that exists and can be written to", c.OutDir, err)
	}
	return nil
}
