package nar

import (
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vm-prebuild/nar/tree"
)

// dirent is an entry of a directory and its type, one of unix.S_IF….
type dirent struct {
	name     string
	fileType uint32
}

// readDir returns the entries of the open directory dir, sorted bytewise.
func readDir(dir int) (entries []dirent, err error) {
	err = tree.EachEntry(dir, make([]byte, 16<<10), func(name string, kind uint8) {
		entries = append(entries, dirent{name: name, fileType: uint32(kind) << 12})
	})
	if err != nil {
		return nil, err
	}
	for i, e := range entries {
		if e.fileType == unix.DT_UNKNOWN { // some file systems do not tell
			var st unix.Stat_t
			if err := unix.Fstatat(dir, e.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return nil, &fs.PathError{Op: "stat", Path: e.name, Err: err}
			}
			entries[i].fileType = st.Mode & unix.S_IFMT
		}
	}
	slices.SortFunc(entries, func(a, b dirent) int { return strings.Compare(a.name, b.name) })
	return entries, nil
}
