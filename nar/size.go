package nar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vm-prebuild/nar/tree"
)

// Size returns the length in bytes of the archive of path, which Dump would
// write. It looks at directories and at the sizes of files but reads none. It
// ends early with ctx's error.
func Size(ctx context.Context, path string) (narSize int64, err error) {
	s := sizer{ctx: ctx}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	size, err := s.node(unix.AT_FDCWD, path, path, &st, 0)
	return tokens(magic) + size, err
}

// tokens is the length of strings in an archive.
func tokens(ss ...string) int64 {
	var n int64
	for _, s := range ss {
		n += padded(int64(len(s)))
	}
	return n
}

// padded is the length in an archive of a string of n bytes.
func padded(n int64) int64 { return 8 + (n+7)&^7 }

type sizer struct{ ctx context.Context }

// node is the length of the archive of name in the directory dir, whose state is
// st, without the magic; path is for messages.
func (s sizer) node(dir int, name, path string, st *unix.Stat_t, depth int) (int64, error) {
	n := tokens("(", "type", ")")
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if st.Mode&unix.S_IXUSR != 0 {
			n += tokens("executable", "")
		}
		return n + tokens("regular", "contents") + padded(st.Size), nil
	case unix.S_IFLNK:
		return n + tokens("symlink", "target") + padded(st.Size), nil
	case unix.S_IFDIR:
		entries, err := s.directory(dir, name, path, depth)
		return n + tokens("directory") + entries, err
	}
	return 0, &fs.PathError{Op: "archive", Path: path, Err: errors.New("not a regular file, directory or symbolic link")}
}

func (s sizer) directory(dir int, name, path string, depth int) (int64, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	if depth == tree.MaxDepth {
		return 0, &fs.PathError{Op: "archive", Path: path, Err: fmt.Errorf("nested deeper than %d directories", tree.MaxDepth)}
	}
	fd, err := tree.OpenDir(dir, name)
	if err != nil {
		return 0, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	entries, err := readDir(fd)
	if err != nil {
		return 0, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	var sum int64
	for _, e := range entries {
		sub := filepath.Join(path, e.name)
		var st unix.Stat_t
		if err := unix.Fstatat(fd, e.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return 0, &fs.PathError{Op: "stat", Path: sub, Err: err}
		}
		n, err := s.node(fd, e.name, sub, &st, depth+1)
		if err != nil {
			return 0, err
		}
		sum += tokens("entry", "(", "name", e.name, "node", ")") + n
	}
	return sum, nil
}
