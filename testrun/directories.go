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

// checkOutputs refuses a test whose results could not be written: at its end
// that would be found out too late.
func (c *Config) checkOutputs(o Options) error {
	if err := checkWritableDir(c.OutDir); err != nil {
		return configErrorf("output directory %s: %w\nhint: -o names a directory that exists and can be written to", c.OutDir, err)
	}
	for _, file := range []struct{ what, path string }{
		{"JUnit report", o.JUnit}, {"JSON lines", o.JSONL}, {"HTML report", o.HTML},
	} {
		if file.path == "" {
			continue
		}
		path := c.Output(file.path)
		if err := checkWritableDir(filepath.Dir(path)); err != nil {
			return configErrorf("%s %s: directory %s: %w\nhint: make the directory first", file.what, file.path, filepath.Dir(path), err)
		}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			return configErrorf("%s %s: is a directory", file.what, path)
		}
	}
	for _, dir := range []struct{ what, path string }{
		{"consoles", o.SerialDir}, {"packet captures", c.PCAPDir},
	} {
		if dir.path == "" {
			continue
		}
		path := c.Output(dir.path)
		if err := os.MkdirAll(path, 0o777); err != nil {
			return configErrorf("directory for %s: %w", dir.what, err)
		}
		if err := checkWritableDir(path); err != nil {
			return configErrorf("directory for %s %s: %w", dir.what, path, err)
		}
	}
	return nil
}

// Output is the path of a result: one that is not absolute is below OutDir.
func (c *Config) Output(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(c.OutDir, path)
}
