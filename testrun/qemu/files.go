package qemu

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// fileIdentity tells a file that is not in the Nix store from what it was before.
type fileIdentity struct {
	Path   string `json:"path"` // without symbolic links
	Size   int64  `json:"size,omitempty"`
	MTime  int64  `json:"mtime,omitempty"` // nanoseconds
	Inode  uint64 `json:"inode,omitempty"`
	CTime  int64  `json:"ctime,omitempty"` // nanoseconds
	SHA256 string `json:"sha256,omitempty"`
}

// identifyProgram describes a program. What is in the store is what its name says; what
// a distribution has installed is the same on other hosts, too, and so has no inode here.
func identifyProgram(path string) (fileIdentity, error) {
	id, err := identify(path)
	id.Inode, id.CTime = 0, 0
	return id, err
}

// identify describes a file, by what its name leads to. Size and mtime do not do: a
// link can lead to another file with the same ones, as all in the store have the
// same mtime, and copies have it from the original.
func identify(path string) (fileIdentity, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fileIdentity{}, err
	}
	if inStore(path) {
		return fileIdentity{Path: path}, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fileIdentity{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return fileIdentity{Path: path, Size: st.Size, MTime: st.Mtim.Nano(), Inode: st.Ino, CTime: st.Ctim.Nano()}, nil
}

// identifyContent describes a file that the start script makes anew each time, in
// the machine's state directory, by its content: nixpkgs' store images.
func identifyContent(ctx context.Context, path, name string) (fileIdentity, error) {
	f, err := openRegular(path)
	if err != nil {
		return fileIdentity{}, err
	}
	defer f.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, readerUntil{ctx, f})
	return fileIdentity{Path: name, Size: size, SHA256: hex.EncodeToString(sum.Sum(nil))}, err
}

// readerUntil reads until its context ends.
type readerUntil struct {
	ctx context.Context
	io.Reader
}

func (r readerUntil) Read(b []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(b)
}

// openRegular opens a file for reading. What is no file is an error at once: the
// opening of a FIFO would wait for a writer.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func inStore(path string) bool { return strings.HasPrefix(path, "/nix/store/") }
