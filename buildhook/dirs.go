package buildhook

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func queueDir(dir string) string  { return filepath.Join(dir, "queue") }
func buildsDir(dir string) string { return filepath.Join(dir, "builds") }
func logFile(dir string) string   { return filepath.Join(dir, "log.jsonl") }

// makeDirs makes the hook's directory, and makes sure that nobody else can write
// or look into it: what lies there is a store in which root builds.
func makeDirs(dir string) error {
	if dir == "" {
		return errors.New("the build hook has no directory")
	}
	for _, d := range []string{dir, queueDir(dir), buildsDir(dir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("make the directory of the build hook: %w\nhint: --store names another", err)
		}
		var st unix.Stat_t
		err := unix.Lstat(d, &st)
		switch {
		case err != nil:
		case st.Mode&unix.S_IFMT != unix.S_IFDIR:
			err = errors.New("not a directory")
		case int(st.Uid) != os.Geteuid():
			err = fmt.Errorf("it belongs to user %d", st.Uid)
		case st.Mode&0o077 != 0:
			err = fmt.Errorf("others may enter it: its mode is %04o, not 0700", st.Mode&0o7777)
		}
		if err != nil {
			return fmt.Errorf("directory of the build hook: %s: %w", d, err)
		}
	}
	return nil
}
